"""Cohort: the jobs of many devices as few passes over one model.

`suspension` stops every device at its compute calls, `execute` groups equal kinds of jobs into
passes, and the other modules run one kind of pass each. Leave it alone unless you add a kind of
job: then add a function that takes K jobs, and name it in `execute`.
"""
