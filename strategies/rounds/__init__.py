"""Rounds: who is asked, how replies become sums, what is known of an arm, and how that lasts.

A stranger leaves this room alone: sums of floats depend on their order, and a run that was killed
must go on with the same bytes.
"""
