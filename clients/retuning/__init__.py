"""Retuning."""
