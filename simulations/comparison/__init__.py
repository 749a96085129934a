"""Finished runs put side by side: seeds folded, devices paired, a winner named."""
