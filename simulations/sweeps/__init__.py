"""Many runs in one folder that go on where they were stopped: a grid of values, and a search.

`kept_runs` is one run of them, `grid` says which runs a sweep has and which are missing,
`running` runs those, alone or several at a time. `search_space` reads ranges, `search` asks and
tells Optuna, `trials` makes a run of a trial. Leave `kept_runs` alone; a rule of pruning belongs
into `search`.
"""
