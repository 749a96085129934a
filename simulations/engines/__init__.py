"""Where the passes of a run are computed: in this process, in several, on Ray, or on stock Flower.

`environment` must be called before torch is imported. `cohort_grid` is our Flower grid, which takes
devices cohort by cohort; `worker_pool` opens the processes or, with `ray_workers` and
`release_parcels`, the Ray actors that run its passes; `stock_flower` runs the same apps on Flower's
own simulation, for parity. `host_energy` and `progress` watch. Leave it alone: no choice made here
changes a result beyond rounding.
"""
