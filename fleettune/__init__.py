"""fleettune: what both sides of a simulated fleet share."""
