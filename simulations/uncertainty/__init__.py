"""How sure a run's joules and savings are: its rows priced again under drawn coefficients.

`estimate` makes the intervals from `coefficient_draws`, `coefficient_probes` and `repricing`;
`priced_rows` and `work_matrices` lay rows out as matrices, so that a thousand draws take seconds;
`memory_flips` counts tunes whose memory is in doubt. Leave it alone: no night runs again here.
"""
