"""Counts tunes that would come to fit a device, or no longer fit, under a draw of its memory.

Physical memory and the share of it that a background job may take have ranges like any coefficient;
the draws are those of all other quantities of the run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from fleettune.cost.hardware import DeviceProfile
from fleettune.cost.radio import Radio
from fleettune.messages.report import BACK
from simulations.uncertainty.coefficient_draws import draw_coefficients

OVER_MEMORY = "over_memory"


def memory_flips(
    rows: pl.DataFrame,
    profiles: Sequence[DeviceProfile],
    radio: Radio,
    seed: int,
    draws: int,
) -> dict[str, float | None]:
    """Returns by arm the mean share of planned tunes whose feasibility flips; None without tunes.

    Args:
        rows: One row per arm, device and round, with `peak_bytes`.
        profiles: The fleet's hardware.
        radio: Its link; only the key of the draws.
        seed: Of the draws.
        draws: How many.
    """
    planned = rows.filter(pl.col("peak_bytes") > 0)
    usable: dict[str, np.ndarray] = {}
    for profile in profiles:
        at = draw_coefficients(profile, radio, seed, draws)
        usable[profile.name] = at["usable_ram"] * at["ram_gb"] * 1e9
    found: dict[str, float | None] = {}
    for arm in rows["arm"].unique().sort().to_list():
        mine = planned.filter(pl.col("arm") == arm)
        flips = [
            float(((peak > usable[profile]) != (reason.removeprefix(BACK) == OVER_MEMORY)).mean())
            for profile, peak, reason in mine.select("profile", "peak_bytes", "reason").rows()
        ]
        found[arm] = sum(flips) / len(flips) if flips else None
    return found
