"""Deltas."""
