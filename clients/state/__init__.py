"""State: what a device keeps between nights, and which of its exchanges never train.

Here stand the state with its quota and its records, and the shelf of patches that are not in use.
It is a part of the story of a night: leave it alone. No rule may import it.
"""
