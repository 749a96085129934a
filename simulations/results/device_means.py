"""Folds: rows become one value per device, and devices become estimates with intervals.

Quality is a mean over devices of each device's mean over rounds; a saving is one minus the ratio of
summed joules. Rows are put in (arm, device, round) order first and sums are exactly rounded
(`math.fsum`), so the order in which rows were written changes nothing. Every interval is a
percentile bootstrap over devices (Efron and Tibshirani 1993, ch. 13), and every arm sees the same
resamples, so differences against the reference stay paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

STAGES = (
    "idle",
    "download",
    "select",
    "synthesise",
    "check",
    "probe",
    "tune",
    "serve",
    "upload",
    "wasted",
)
DECISIONS = ("reuse", "retune", "never", "infeasible", "failed")
TIERS = ("M", "F", "S", "V", "E")
QUALITIES = ("nll", "exact_match", "approval", "mae", "rouge1")
HEADLINES: Mapping[str, tuple[str, float]] = {
    "exact_match": ("exact_match", 1.0),
    "neg_mae": ("mae", -1.0),
    "neg_nll": ("nll", -1.0),
    "rouge1": ("rouge1", 1.0),
}
"""Headline metric, always higher is better: its column and the column's sign."""

_SUMS = ("energy_j", "time_s", "down_bytes", "up_bytes")
_FLOATS = (*_SUMS, *QUALITIES, *(f"energy_j_{stage}" for stage in STAGES))
_WORDS = ("profile", "attendance", "decision")
_KEYS = ("arm", "device", "round")
_DRAWS = 2_000
_BLOCK = 2**20
_BOOTSTRAP_STREAM = 0x5A11


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFold:
    """One arm's rows folded per device: devices ascend, quality is NaN where never evaluated."""

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


def fold_devices(rows: pl.DataFrame, metric: str) -> DeviceFold:
    """Returns each device's joules and mean headline quality, from an arm of `split_arms`."""
    column, sign = HEADLINES[metric]
    devices, codes = np.unique(rows["device"].cast(pl.Int64).to_numpy(), return_inverse=True)
    energy_j = np.bincount(codes, weights=numbers(rows, "energy_j"), minlength=len(devices))
    return DeviceFold(
        devices=devices,
        energy_j=energy_j.astype(np.float64),
        quality=sign * mean_by(rows, "device", column)[1],
    )


def without_stage(rows: pl.DataFrame, stage: str) -> pl.DataFrame:
    """Returns rows whose joules leave out a stage's own, above idle."""
    return rows.with_columns(pl.col("energy_j") - pl.col(f"energy_j_{stage}"))


def mean_by(rows: pl.DataFrame, key: str, column: str) -> tuple[Indices, Floats]:
    """Returns an integer column's values, ascending, and the mean of another column for each."""
    groups, codes = np.unique(rows[key].cast(pl.Int64).to_numpy(), return_inverse=True)
    values = numbers(rows, column)
    known = ~np.isnan(values)
    sums = np.bincount(codes[known], weights=values[known], minlength=len(groups))
    counts = np.bincount(codes[known], minlength=len(groups))
    means = np.full(len(groups), math.nan)
    return groups, np.divide(sums, counts, out=means, where=counts > 0)


def paired(arm: DeviceFold, reference: DeviceFold) -> tuple[DeviceFold, DeviceFold]:
    """Returns both folds cut to the devices they share, in the same order."""
    _, here, there = np.intersect1d(
        arm.devices, reference.devices, assume_unique=True, return_indices=True
    )
    return _take(arm, here), _take(reference, there)


def _take(fold: DeviceFold, index: NDArray[np.intp]) -> DeviceFold:
    return DeviceFold(
        devices=fold.devices[index], energy_j=fold.energy_j[index], quality=fold.quality[index]
    )


def numbers(rows: pl.DataFrame, column: str) -> Floats:
    """Returns a column as floats, NaN where unknown."""
    return rows[column].cast(pl.Float64).fill_null(math.nan).to_numpy()


def compared(arm: DeviceFold, reference: DeviceFold, seed: int) -> dict[str, Any]:
    """Returns saving and quality difference of one arm against another, paired by device."""
    arm, reference = paired(arm, reference)
    return {
        "energy_saving": _saving(arm.energy_j, reference.energy_j, seed),
        "quality_difference": mean_with_interval(arm.quality - reference.quality, seed),
    }


def compared_column(
    arm: pl.DataFrame, reference: pl.DataFrame, column: str, seed: int
) -> dict[str, Any]:
    """Returns saving and difference of one column, paired by device, of arms of `split_arms`.

    Raises:
        ValueError: If there is no such column of numbers.
    """
    if column not in arm.columns or not arm[column].dtype.is_numeric():
        raise ValueError(f"a claim's column must be one of numbers in rows.parquet, got {column!r}")
    folds = [_fold_column(rows, column) for rows in (arm, reference)]
    here, there = paired(*folds)
    return {
        "saving": _saving(here.energy_j, there.energy_j, seed),
        "difference": mean_with_interval(here.quality - there.quality, seed),
    }


def _fold_column(rows: pl.DataFrame, column: str) -> DeviceFold:
    """Returns a column's sum per device in place of joules, its mean in place of quality."""
    devices, means = mean_by(rows, "device", column)
    sums = rows.group_by("device").agg(pl.col(column).cast(pl.Float64).sum()).sort("device")
    return DeviceFold(devices=devices, energy_j=sums[column].to_numpy(), quality=means)


def _saving(arm_j: Floats, reference_j: Floats, seed: int) -> dict[str, Any]:
    """1 minus the ratio of summed joules, resampling whole devices."""

    def statistic(index: Indices) -> Floats:
        return 1.0 - arm_j[index].sum(axis=1) / reference_j[index].sum(axis=1)

    spent_j = math.fsum(reference_j.tolist())
    mean = 1.0 - math.fsum(arm_j.tolist()) / spent_j if spent_j else math.nan
    return {"mean": finite(mean), "ci95": bootstrap_interval(statistic, len(arm_j), seed)}


def mean_with_interval(per_device: Floats, seed: int) -> dict[str, Any]:
    """Returns the mean of the known values and its interval, None where unknown."""
    known = per_device[~np.isnan(per_device)]
    ci95 = bootstrap_interval(lambda index: known[index].mean(axis=1), len(known), seed)
    return {"mean": mean_known(known), "ci95": ci95}


def mean_known(per_device: Floats) -> float | None:
    """Returns the mean of the values that are not NaN; None if there is none."""
    known = per_device[~np.isnan(per_device)]
    return finite(math.fsum(known.tolist()) / len(known)) if len(known) else None


def bootstrap_interval(
    statistic: Callable[[Indices], Floats], count: int, seed: int
) -> list[float | None]:
    """Percentile interval of a statistic of device indices [draws, count]; none below 2 devices."""
    if count < 2:
        return [None, None]
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_BOOTSTRAP_STREAM,)))
    block = max(1, _BLOCK // count)
    drawn: list[Floats] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, _DRAWS, block):
            size = (min(block, _DRAWS - start), count)
            drawn.append(statistic(rng.integers(count, size=size)))
        low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return [finite(float(low)), finite(float(high))]


def total(rows: pl.DataFrame, column: str) -> float | None:
    """Returns the exactly rounded sum; one unknown addend makes it unknown."""
    return finite(math.fsum(numbers(rows, column).tolist()))


def finite(value: float) -> float | None:
    """Returns a number as it is, None for one that is not finite."""
    return float(value) if math.isfinite(value) else None
