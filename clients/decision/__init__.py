"""Decision: a device asks its rule about a new release, and does what the rule says.

Here stand what asking costs, the trial that an oracle orders, and releases that come back after a
roll-out was recalled. It is a part of the story of a night: leave it alone, and write a rule of
adaptation instead. No rule may import it.
"""
