"""Observer: what the experiment sees of a device, and the device does not.

Here stand the quality on days to come, what a retune would have gained, and how good a start was.
Nothing of it is billed, and only the experiment reads it. An oracle alone is told what a retune
gains. Leave it alone. No rule may import it.
"""
