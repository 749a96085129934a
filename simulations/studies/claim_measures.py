"""What claims are about: each function estimates one measure, with a 95 % interval.

An estimate is ``{"mean": ..., "ci95": [low, high]}``, None where unknown. Intervals are percentiles
over resampled seeds and devices within them, all nights of a device together. What is about single
decisions stands in `simulations.studies.decision_measures`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias, cast

import numpy as np
import polars as pl

from simulations.experiment.headlines import HEADLINES
from simulations.results.device_means import (
    Floats,
    Indices,
    average_by,
    bootstrap_interval,
    finite,
)

Three: TypeAlias = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]
"""Rows of an arm, of the arm that gains nothing and of the one that gains all."""


def estimate_above_line(
    arm: pl.DataFrame, line: Sequence[pl.DataFrame], column: str, metric: str
) -> dict[str, Any]:
    """Returns by how much an arm's quality lies above a line through other arms.

    The line joins the arms' points (mean per device of a column's sum, mean quality) and is flat
    beyond its ends, so who spends more than its dearest arm must beat that arm. Between two points
    lies what a fleet reaches of which a random share of devices follows each. A line of the two
    extremes, reuse and retune always, is the chord; one with more points compares at equal retunes.

    Args:
        arm: The rows of the arm.
        line: The rows of the arms on the line.
        column: What is spent: retunes or joules.
        metric: The headline metric.
    """
    devices, spent, quality = _weigh([arm, *line], column, metric)

    def statistic(index: Indices) -> Floats:
        return np.array([_subtract_line(spent[:, one], quality[:, one]) for one in index])

    return add_interval(_subtract_line(spent, quality), statistic, devices)


def _subtract_line(spent: Floats, quality: Floats) -> float:
    x, y = spent.mean(axis=1), np.nanmean(quality, axis=1)
    order = np.argsort(x[1:], kind="stable")
    on_line = cast(float, np.interp(x[0], x[1:][order], y[1:][order]))
    return float(y[0] - on_line)


def estimate_retained(frames: Three, column: str, earlier: Three | None = None) -> dict[str, Any]:
    """Returns the share of what one arm gains over another that a third keeps, in a column's mean.

    With losses: (none - arm) / (none - full), as docs/methods.md#retained-gain has it.

    Args:
        frames: Rows of the arm, of none and of full.
        column: What is gained.
        earlier: The same on other nights, whose share is taken off.
    """
    groups = [frames] if earlier is None else [frames, earlier]
    devices, _ = _sum_by_device([rows for group in groups for rows in group], column)
    means = [[_average_by_device(rows, column, devices) for rows in group] for group in groups]

    def share(group: list[Floats], index: Indices) -> Floats:
        here, base, top = (values[index] for values in group)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nanmean(base - here, axis=1) / np.nanmean(base - top, axis=1)

    def statistic(index: Indices) -> Floats:
        first, *others = (share(group, index) for group in means)
        return first - others[0] if others else first

    mean = statistic(np.arange(len(devices))[None])[0] if len(devices) else math.nan
    return add_interval(float(mean), statistic, devices)


def estimate_equal_quality_cost(
    ladder: Sequence[pl.DataFrame], against: Sequence[pl.DataFrame], column: str, metric: str
) -> dict[str, Any]:
    """Returns 1 minus the ratio of what two ladders of arms need to come to the same quality.

    The arms of a ladder do the same with more and more of something: steps, epochs, joules. Between
    two of them mean quality is taken to grow in a straight line. The target is the mean quality of
    the other ladder's highest arm. A ladder that does not come so far needs infinitely much; then
    the mean is None.

    Args:
        ladder: Rows of the arms, from the lowest.
        against: The same of the other way; its highest arm sets the target.
        column: What is needed, summed per device.
        metric: The headline metric.
    """
    devices, need, quality = _weigh([*ladder, *against], column, metric)
    count = len(ladder)

    def statistic(index: Indices) -> Floats:
        found: list[float] = []
        for drawn in index:
            q, n = np.nanmean(quality[:, drawn], axis=1), need[:, drawn].mean(axis=1)
            own = find_need(q[-1], q[:count], n[:count])
            other = find_need(q[-1], q[count:], n[count:])
            found.append(1.0 - own / other if other > 0 else math.nan)
        return np.array(found)

    mean = float(statistic(np.arange(len(devices))[None])[0])
    return add_interval(mean, statistic, devices)


def find_need(target: float, quality: Floats, need: Floats) -> float:
    """Returns the need at which a ladder first comes to a quality; infinite if it never does."""
    if quality[0] >= target:
        return float(need[0])
    for rung in range(1, len(quality)):
        if quality[rung] >= target:
            share = (target - quality[rung - 1]) / (quality[rung] - quality[rung - 1])
            return float(need[rung - 1] + share * (need[rung] - need[rung - 1]))
    return math.inf


def add_interval(
    mean: float, statistic: Callable[[Indices], Floats], devices: Indices
) -> dict[str, Any]:
    """Returns an estimate: a mean with the interval of a statistic of drawn devices."""
    return {"mean": finite(mean), "ci95": bootstrap_interval(statistic, devices, seed=0)}


def _weigh(
    frames: Sequence[pl.DataFrame], column: str, metric: str
) -> tuple[Indices, Floats, Floats]:
    """Returns the devices that all frames share, a column's sums and the quality of each."""
    devices, sums = _sum_by_device(frames, column)
    head = HEADLINES[metric]
    quality = [head.sign * _average_by_device(rows, head.column, devices) for rows in frames]
    return devices, sums, np.stack(quality)


def _sum_by_device(frames: Sequence[pl.DataFrame], column: str) -> tuple[Indices, Floats]:
    """Returns the devices that all frames share, and a column's sum for each, frame by frame."""
    devices = reduce(np.intersect1d, (average_by(rows, "device", column)[0] for rows in frames))
    sums = [
        rows.filter(pl.col("device").is_in(devices.tolist()))
        .group_by("device")
        .agg(pl.col(column).cast(pl.Float64).sum())
        .sort("device")[column]
        .to_numpy()
        for rows in frames
    ]
    return devices, np.stack(sums)


def _average_by_device(rows: pl.DataFrame, column: str, devices: Indices) -> Floats:
    known, means = average_by(rows, "device", column)
    return means[np.isin(known, devices)]
