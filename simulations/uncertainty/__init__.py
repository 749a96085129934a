"""How sure a run's joules and savings are: its rows priced again under drawn coefficients.

`estimate` makes the intervals from `coefficient_draws`, `coefficient_probes` and `repricing`;
`priced_rows` lays rows out as arrays; `memory_flips` counts tunes whose memory is in doubt. Leave
it alone: no night runs again here.
"""
