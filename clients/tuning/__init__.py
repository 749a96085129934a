"""Tuning: what a tune is on this device.

Here stand its schedule, what a rule of placement may look at before it places, what the tune takes
in joules, memory and storage, the plan of it, and the patch that it starts from. Rules read this
room; you may read it too.
"""
