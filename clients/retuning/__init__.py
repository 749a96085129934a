"""Retuning: how a device tunes its patch.

Here stand the plan of a tune and what hinders it, synthetic pairs, early stopping, and the tune
itself. It is a part of the story of a night: leave it alone, and write a rule of placement, start
or synthesis instead. No rule may import it.
"""
