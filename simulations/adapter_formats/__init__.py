"""Adapter_formats."""
