"""Reach: what each of two ways needs to come to the same quality.

A way is a ladder of arms that do the same with more and more of something: steps, epochs, joules.
Between two rungs mean quality is taken to grow in a straight line; what is needed is read off at
the target, the mean quality of the other ladder's top rung.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from simulations.results.device_means import (
    HEADLINES,
    Floats,
    Indices,
    average_by,
    bootstrap_interval,
    finite,
)


def reach_saving(
    ladder: Sequence[pl.DataFrame], against: Sequence[pl.DataFrame], column: str, metric: str
) -> dict[str, Any]:
    """Returns 1 minus the ratio of what two ladders need to reach the other's top quality.

    A ladder that does not come so far needs infinitely much; then the mean is None.

    Args:
        ladder: Rows of the arms, from the lowest rung; arms of
            `simulations.results.device_means.split_arms`.
        against: The same of the other way; its top rung sets the target.
        column: What is needed, summed per device.
        metric: The headline metric.
    """
    arms = [*ladder, *against]
    devices = reduce(np.intersect1d, (average_by(rows, "device", column)[0] for rows in arms))
    need = np.stack([_summed(rows, column, devices) for rows in arms])
    quality = np.stack([_quality(rows, metric, devices) for rows in arms])
    count = len(ladder)

    def statistic(index: Indices) -> Floats:
        found: list[float] = []
        for drawn in index:
            q, n = np.nanmean(quality[:, drawn], axis=1), n_of(need, drawn)
            needed = needed_for(q[-1], q[:count], n[:count])
            other = needed_for(q[-1], q[count:], n[count:])
            found.append(1.0 - needed / other if other > 0 else math.nan)
        return np.array(found)

    mean = float(statistic(np.arange(len(devices))[None])[0])
    return {"mean": finite(mean), "ci95": bootstrap_interval(statistic, len(devices), seed=0)}


def n_of(need: Floats, drawn: NDArray[np.int64]) -> Floats:
    """Returns the mean need of every rung over drawn devices."""
    return need[:, drawn].mean(axis=1)


def needed_for(target: float, quality: Floats, need: Floats) -> float:
    """Returns the need at which a ladder first reaches a quality; infinite if it never does."""
    if quality[0] >= target:
        return float(need[0])
    for rung in range(1, len(quality)):
        if quality[rung] >= target:
            share = (target - quality[rung - 1]) / (quality[rung] - quality[rung - 1])
            return float(need[rung - 1] + share * (need[rung] - need[rung - 1]))
    return math.inf


def _summed(rows: pl.DataFrame, column: str, devices: Indices) -> Floats:
    sums = rows.group_by("device").agg(pl.col(column).sum()).sort("device")
    return sums.filter(pl.col("device").is_in(devices))[column].cast(pl.Float64).to_numpy()


def _quality(rows: pl.DataFrame, metric: str, devices: Indices) -> Floats:
    column, sign = HEADLINES[metric]
    known, means = average_by(rows, "device", column)
    return sign * means[np.isin(known, devices)]
