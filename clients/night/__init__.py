"""Night: the order for a night, the night as a value, and what happens in it besides tuning.

Here stand whether a device works and how long, what it reads and selects, what it downloads and
uploads, what its shelf has room for, and how work is billed. It is a part of the story of a night:
leave it alone. No rule may import it, for an order knows the days to come.
"""
