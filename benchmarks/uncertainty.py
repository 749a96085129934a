"""What the Monte Carlo over coefficients costs: made-up rows under 1,000 draws, on one core.

    python benchmarks/uncertainty.py [--quick]

A row is an arm, device and round; each has eight entries of work, as the nights of the main job
have. Prompts are short and long, so that some are bound by memory and some by computing.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}

import time

import numpy as np
import polars as pl

from fleettune.cost.hardware import load_hardware
from fleettune.cost.radio import WIFI
from measure import Figures, emit, run_figures
from simulations.experiment.device_fleet import HARDWARE
from simulations.uncertainty.estimate import estimate

ENTRIES = (  # stage, phase, FLOP, bytes, bursts
    ("download", "receive", 0, 2.5e9, 1),
    ("download", "write", 0, 2.5e9, 0),
    ("check", "read", 0, 2e7, 0),
    ("tune", "forward", 3.6e12, 6e10, 0),
    ("tune", "backward", 2e12, 4e10, 0),
    ("serve", "prefill", 6e11, 3e10, 0),
    ("serve", "decode", 1.4e11, 1.4e11, 0),
    ("upload", "send", 0, 2.2e7, 1),
)
DEADLINE_S = 1800.0


def made_up(rows: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns rows and their work: 5 arms, 10 rounds, the devices cycling through all profiles."""
    names = list(load_hardware(HARDWARE))
    devices = rows // 50
    rng = np.random.default_rng(0)
    place = np.arange(rows)
    keys = pl.DataFrame(
        {
            "arm": [f"arm_{one}" for one in place // (devices * 10)],
            "device": place // 10 % devices,
            "round": place % 10,
        }
    )
    parts = [
        keys.with_columns(
            pl.lit(stage).alias("stage"),
            pl.lit(phase).alias("phase"),
            pl.Series("flop", flop * rng.uniform(0.2, 3, rows)),
            pl.Series("moved_bytes", size * rng.uniform(0.2, 3, rows)),
            pl.lit(float(bursts)).alias("bursts"),
        )
        for stage, phase, flop, size, bursts in ENTRIES
    ]
    profile = pl.Series("profile", [names[one % len(names)] for one in place // 10 % devices])
    attended = keys.with_columns(profile, pl.lit("present").alias("attendance"))
    return attended, pl.concat(parts)


def measure_draws(count: int) -> None:
    """Prints the seconds that the draws of so many rows take."""
    rows, work = made_up(count)
    profiles = list(load_hardware(HARDWARE).values())
    started, busy = time.perf_counter(), time.process_time()
    found = estimate(rows, work, profiles, "arm_0", radio=WIFI, seed=0, deadline_s=DEADLINE_S)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    detail = {"cpu_s": round(busy, 2), "rows": count, "work_entries": work.height}
    emit("monte_carlo_s", round(seconds, 2), detail | {"draws": found.draws})


FIGURES: Figures = {"monte_carlo_s": lambda quick: measure_draws(10_000 if quick else 100_000)}

if __name__ == "__main__":
    run_figures("What the Monte Carlo over coefficients costs.", FIGURES)
