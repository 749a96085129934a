"""Turns rows into one value per device, and devices into estimates with intervals.

Quality is a mean over devices of each device's mean over rounds; a saving is one minus the ratio of
summed joules. Rows are put in (arm, device, round) order first and sums are exactly rounded
(`math.fsum`), so the order in which rows were written changes nothing. Every interval is a
percentile bootstrap (Efron and Tibshirani 1993, ch. 13) over devices. A study has devices of
several seeds, each with a train of releases that all its devices share; there a resample draws
trains first, and then devices of each drawn train (Davison and Hinkley 1997, section 3.8). Every
arm sees the same resamples, so differences against the reference stay paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fleettune.cost.ledger import Stage
from simulations.experiment.headlines import HEADLINES

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

STAGES = tuple(stage.value for stage in Stage if stage is not Stage.OBSERVE)
DECISIONS = ("reuse", "retune", "never", "infeasible", "failed")
QUALITIES = ("nll", "exact_match", "approval", "mae", "rouge1")

_SUMS = ("energy_j", "time_s", "down_bytes", "up_bytes")
_FLOATS = (*_SUMS, *QUALITIES, *(f"energy_j_{stage}" for stage in STAGES))
_WORDS = ("profile", "attendance", "decision")
_KEYS = ("arm", "device", "round")
RESAMPLES = 2_000
_BLOCK = 2**20
_BOOTSTRAP_STREAM = 0x5A11
APART = 10_000_000
"""What a study adds to the numbers of devices from one seed to the next, more than a fleet has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerDevice:
    """Joules and quality of one arm's devices, in order; quality is NaN where unknown."""

    devices: Indices
    energy_j: Floats
    quality: Floats


def split_arms(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Returns each arm's rows: arms by name, rows by device and round, unknowns as null.

    Raises:
        ValueError: If a column is missing or two rows share arm, device and round.
    """
    missing = [name for name in (*_KEYS, *_WORDS, *_FLOATS) if name not in rows.columns]
    if missing:
        raise ValueError(f"rows lack the columns {missing}")
    doubled = rows.height - rows.select(_KEYS).n_unique() if rows.height else 0
    if doubled:
        raise ValueError(f"rows must be unique by arm, device and round: {doubled} are doubled")
    ordered = rows.with_columns(pl.col(_FLOATS).cast(pl.Float64).fill_nan(None)).sort(_KEYS)
    names: list[str] = ordered["arm"].unique().sort().to_list()
    return {name: ordered.filter(pl.col("arm") == name) for name in names}


def reduce_by_device(rows: pl.DataFrame, metric: str) -> PerDevice:
    """Returns each device's joules and mean headline quality, from an arm of `split_arms`."""
    head = HEADLINES[metric]
    devices, codes = np.unique(rows["device"].cast(pl.Int64).to_numpy(), return_inverse=True)
    energy_j = np.bincount(codes, weights=floats_of(rows, "energy_j"), minlength=len(devices))
    return PerDevice(
        devices=devices,
        energy_j=energy_j.astype(np.float64),
        quality=head.sign * average_by(rows, "device", head.column)[1],
    )


def drop_stage(rows: pl.DataFrame, stage: str) -> pl.DataFrame:
    """Returns rows whose joules leave out a stage's own, above idle."""
    return rows.with_columns(pl.col("energy_j") - pl.col(f"energy_j_{stage}"))


def average_by(rows: pl.DataFrame, key: str, column: str) -> tuple[Indices, Floats]:
    """Returns an integer column's values, ascending, and the mean of another column for each."""
    groups, codes = np.unique(rows[key].cast(pl.Int64).to_numpy(), return_inverse=True)
    values = floats_of(rows, column)
    known = ~np.isnan(values)
    sums = np.bincount(codes[known], weights=values[known], minlength=len(groups))
    counts = np.bincount(codes[known], minlength=len(groups))
    means = np.full(len(groups), math.nan)
    return groups, np.divide(sums, counts, out=means, where=counts > 0)


def pair_devices(arm: PerDevice, reference: PerDevice) -> tuple[PerDevice, PerDevice]:
    """Returns both arms cut to the devices that they share, in the same order."""
    _, here, there = np.intersect1d(
        arm.devices, reference.devices, assume_unique=True, return_indices=True
    )
    return take_devices(arm, here), take_devices(reference, there)


def take_devices(arm: PerDevice, index: NDArray[np.intp]) -> PerDevice:
    """Returns an arm cut to the devices at some places."""
    return PerDevice(
        devices=arm.devices[index], energy_j=arm.energy_j[index], quality=arm.quality[index]
    )


def floats_of(rows: pl.DataFrame, column: str) -> Floats:
    """Returns a column as floats, NaN where unknown."""
    return rows[column].cast(pl.Float64).fill_null(math.nan).to_numpy()


def compare_arms(arm: PerDevice, reference: PerDevice, seed: int) -> dict[str, Any]:
    """Returns saving and quality difference of one arm against another, paired by device."""
    arm, reference = pair_devices(arm, reference)
    return {
        "energy_saving": _saving(arm, reference, seed),
        "quality_difference": estimate_mean(arm.quality - reference.quality, arm.devices, seed),
    }


def compare_columns(
    arm: pl.DataFrame, reference: pl.DataFrame, column: str, seed: int
) -> dict[str, Any]:
    """Returns saving and difference of one column, paired by device, of arms of `split_arms`.

    Raises:
        ValueError: If there is no such column of numbers.
    """
    if column not in arm.columns or not arm[column].dtype.is_numeric():
        raise ValueError(f"a claim's column must be one of numbers in rows.parquet, got {column!r}")
    here, there = pair_devices(*(_reduce_column(rows, column) for rows in (arm, reference)))
    return {
        "saving": _saving(here, there, seed),
        "difference": estimate_mean(here.quality - there.quality, here.devices, seed),
    }


def _reduce_column(rows: pl.DataFrame, column: str) -> PerDevice:
    """Returns a column's sum per device in place of joules, its mean in place of quality."""
    devices, means = average_by(rows, "device", column)
    sums = rows.group_by("device").agg(pl.col(column).cast(pl.Float64).sum()).sort("device")
    return PerDevice(devices=devices, energy_j=sums[column].to_numpy(), quality=means)


def _saving(arm: PerDevice, reference: PerDevice, seed: int) -> dict[str, Any]:
    """1 minus the ratio of summed joules, resampling whole devices."""
    spent_j = math.fsum(reference.energy_j.tolist())
    mean = 1.0 - math.fsum(arm.energy_j.tolist()) / spent_j if spent_j else math.nan
    return {"mean": finite(mean), "ci95": get_interval(draw_savings(arm, reference, seed))}


def draw_savings(arm: PerDevice, reference: PerDevice, seed: int) -> Floats:
    """Returns the saving of one arm against another of the same devices in every resample."""
    arm_j, reference_j = arm.energy_j, reference.energy_j
    return resample(
        lambda index: 1.0 - arm_j[index].sum(axis=1) / reference_j[index].sum(axis=1),
        arm.devices,
        seed,
    )


def estimate_mean(per_device: Floats, devices: Indices, seed: int) -> dict[str, Any]:
    """Returns the mean of the known values and its interval, None where unknown."""
    ci95 = get_interval(draw_means(per_device, devices, seed))
    return {"mean": average_known(per_device), "ci95": ci95}


def draw_means(per_device: Floats, devices: Indices, seed: int) -> Floats:
    """Returns the mean of the known values in every resample."""
    known, whose = per_device[~np.isnan(per_device)], devices[~np.isnan(per_device)]
    return resample(lambda index: known[index].mean(axis=1), whose, seed)


def average_known(per_device: Floats) -> float | None:
    """Returns the mean of the values that are not NaN; None if there is none."""
    known = per_device[~np.isnan(per_device)]
    return finite(math.fsum(known.tolist()) / len(known)) if len(known) else None


def bootstrap_interval(
    statistic: Callable[[Indices], Floats], devices: Indices, seed: int
) -> list[float | None]:
    """Returns the percentile interval of a statistic over resamples; its arguments: `resample`."""
    return get_interval(resample(statistic, devices, seed))


def get_interval(draws: Floats) -> list[float | None]:
    """Returns the percentile interval of draws; None where it is unknown."""
    if not len(draws):
        return [None, None]
    with np.errstate(invalid="ignore"):
        low, high = np.percentile(draws, [2.5, 97.5])
    return [finite(float(low)), finite(float(high))]


def resample(statistic: Callable[[Indices], Floats], devices: Indices, seed: int) -> Floats:
    """Returns a statistic of device indices [draws, devices] in every resample.

    There are no resamples below 2 devices.

    Args:
        statistic: What it is of; an index is a place in `devices`.
        devices: The numbers of the devices, ascending, seeds `APART`.
        seed: Key of the draws.
    """
    count = len(devices)
    if count < 2:
        return np.empty(0)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_BOOTSTRAP_STREAM,)))
    block = max(1, _BLOCK // count)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = [
            statistic(draw_devices(rng, devices, min(block, RESAMPLES - start)))
            for start in range(0, RESAMPLES, block)
        ]
    return np.concatenate(drawn)


def draw_devices(rng: np.random.Generator, devices: Indices, draws: int) -> Indices:
    """Returns places in `devices` of resamples, [draws, devices], as the module says.

    Each train of a resample has as many devices as the train in whose place it was drawn.
    """
    _, first, size = np.unique(devices // APART, return_index=True, return_counts=True)
    if len(first) == 1:
        return rng.integers(len(devices), size=(draws, len(devices)))
    trains = rng.integers(len(first), size=(draws, len(first)))
    places = [
        first[train][:, None] + rng.integers(size[train][:, None], size=(draws, own))
        for train, own in zip(trains.T, size, strict=True)
    ]
    return np.concatenate(places, axis=1)


def sum_column(rows: pl.DataFrame, column: str) -> float | None:
    """Returns the exactly rounded sum; one unknown addend makes it unknown."""
    return finite(math.fsum(floats_of(rows, column).tolist()))


def finite(value: float) -> float | None:
    """Returns a number as it is, None for one that is not finite."""
    return float(value) if math.isfinite(value) else None
