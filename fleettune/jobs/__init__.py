"""Jobs: what a device may ask of its own processor, as values, and the results that come back.

Rules call `Compute` and never a model. You may ask for any job in a rule; a new kind of job needs a
value here and a pass in `fleettune.cohort`.
"""
