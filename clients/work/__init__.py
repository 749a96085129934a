"""Work: what a device knows of itself, and what each stage of a night asks of it, unpriced.

The functions only count; `fleettune.cost` prices. You may read it: a rule that measures or trains
bills what it asks for with these functions.
"""
