"""What one device does in a round."""
