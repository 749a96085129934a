"""Hydra configuration: one group per choice, one file per option."""
