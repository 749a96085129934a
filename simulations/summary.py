"""The summary of a run: one fold of its rows, with paired bootstrap intervals over devices.

Joules, seconds and bytes add, so they are summed; quality is a mean over devices of each device's
mean over rounds. Rows are put in (arm, device, round) order first and totals are exactly rounded
(`math.fsum`), so the order in which rows were written changes nothing. Every interval is a
percentile bootstrap over devices (Efron and Tibshirani 1993, ch. 13), and every arm sees the same
resamples, so differences against the reference stay paired.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
QUALITIES = ("nll", "exact_match", "approval", "mae")
HEADLINES: Mapping[str, tuple[str, float]] = {
    "exact_match": ("exact_match", 1.0),
    "neg_mae": ("mae", -1.0),
    "neg_nll": ("nll", -1.0),
}
"""Headline metric, always higher is better: its column and the column's sign."""

LABEL = (
    "joules and seconds are simulated; the low and high totals take every coefficient at the low "
    "and at the high end of its range; ci95 is a 95 % bootstrap interval over devices"
)

_SUMS = ("energy_j", "time_s", "down_bytes", "up_bytes")
_FLOATS = (*_SUMS, *QUALITIES, *(f"energy_j_{stage}" for stage in STAGES))
_KEYS = ("arm", "device", "round")
_DRAWS = 2_000
_BLOCK = 2**20
_BOOTSTRAP_STREAM = 0x5A11


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What was run: the facts that all arms share."""

    seed: int
    devices: int
    rounds: int
    releases: int
    engine: str
    backbone: str
    data: str
    quality_metric: str
    reference: str
    coefficients: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.quality_metric not in HEADLINES:
            raise ValueError(
                f"quality_metric must be one of {sorted(HEADLINES)}, got {self.quality_metric!r}"
            )
        if unknown := set(self.coefficients) - set(TIERS):
            raise ValueError(f"coefficients must be keyed by {TIERS}, got {sorted(unknown)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfo:
    """What the run took on the host that simulated it: measured, never simulated."""

    host_seconds: float
    peak_rss_mb: float
    seconds_by_phase: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFold:
    """One arm's rows folded per device: devices ascend, quality is NaN where never evaluated."""

    devices: Indices
    energy_j: Floats
    quality: Floats


def summarise(rows: pl.DataFrame, run: RunInfo, host: HostInfo) -> dict[str, Any]:
    """The JSON-ready summary of a run; a quantity that is unknown is None, never NaN.

    Args:
        rows: One row per arm, device and round, in any order.
        run: What was run; names the headline metric and the reference arm.
        host: What it took on the host.

    Raises:
        ValueError: If a column is missing, a row is doubled or the reference arm has no rows.
    """
    arms = split_arms(rows)
    if run.reference not in arms:
        raise ValueError(f"reference must be an arm of the run {sorted(arms)}: {run.reference!r}")
    folds = {arm: fold_devices(part, run.quality_metric) for arm, part in arms.items()}
    return {
        "schema": 1,
        "run": {
            "seed": run.seed,
            "devices": run.devices,
            "rounds": run.rounds,
            "releases": run.releases,
            "engine": run.engine,
            "backbone": run.backbone,
            "data": run.data,
            "host_seconds": _finite(host.host_seconds),
            "peak_rss_mb": _finite(host.peak_rss_mb),
        },
        "arms": {
            arm: {
                "quality": _quality(part, folds[arm], run),
                **_totals(part),
                "vs_reference": {
                    "reference": run.reference,
                    **compared(folds[arm], folds[run.reference], run.seed),
                },
            }
            for arm, part in arms.items()
        },
        "coefficients": {tier: int(run.coefficients.get(tier, 0)) for tier in TIERS},
        "label": LABEL,
    }


def split_arms(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Rows of each arm, arms by name, rows by device and round, unknown quantities as null.

    Raises:
        ValueError: If a column is missing or two rows share arm, device and round.
    """
    missing = [name for name in (*_KEYS, "decision", *_FLOATS) if name not in rows.columns]
    if missing:
        raise ValueError(f"rows lack the columns {missing}")
    doubled = rows.height - rows.select(_KEYS).n_unique() if rows.height else 0
    if doubled:
        raise ValueError(f"rows must be unique by arm, device and round: {doubled} are doubled")
    ordered = rows.with_columns(pl.col(_FLOATS).cast(pl.Float64).fill_nan(None)).sort(_KEYS)
    names: list[str] = ordered["arm"].unique().sort().to_list()
    return {name: ordered.filter(pl.col("arm") == name) for name in names}


def fold_devices(rows: pl.DataFrame, metric: str) -> DeviceFold:
    """Each device's joules and mean headline quality, from one arm's rows of `split_arms`."""
    column, sign = HEADLINES[metric]
    devices, codes = np.unique(rows["device"].cast(pl.Int64).to_numpy(), return_inverse=True)
    energy_j = np.bincount(codes, weights=_numbers(rows, "energy_j"), minlength=len(devices))
    return DeviceFold(
        devices=devices,
        energy_j=energy_j.astype(np.float64),
        quality=sign * mean_by(rows, "device", column)[1],
    )


def mean_by(rows: pl.DataFrame, key: str, column: str) -> tuple[Indices, Floats]:
    """Ascending values of an integer column, and the mean of another for each; NaN if unknown."""
    groups, codes = np.unique(rows[key].cast(pl.Int64).to_numpy(), return_inverse=True)
    values = _numbers(rows, column)
    known = ~np.isnan(values)
    sums = np.bincount(codes[known], weights=values[known], minlength=len(groups))
    counts = np.bincount(codes[known], minlength=len(groups))
    means = np.full(len(groups), math.nan)
    return groups, np.divide(sums, counts, out=means, where=counts > 0)


def paired(arm: DeviceFold, reference: DeviceFold) -> tuple[DeviceFold, DeviceFold]:
    """Both folds cut to the devices they share, in the same order."""
    _, here, there = np.intersect1d(
        arm.devices, reference.devices, assume_unique=True, return_indices=True
    )
    return _take(arm, here), _take(reference, there)


def _take(fold: DeviceFold, index: NDArray[np.intp]) -> DeviceFold:
    return DeviceFold(
        devices=fold.devices[index], energy_j=fold.energy_j[index], quality=fold.quality[index]
    )


def _numbers(rows: pl.DataFrame, column: str) -> Floats:
    return rows[column].fill_null(math.nan).to_numpy()


def _quality(rows: pl.DataFrame, fold: DeviceFold, run: RunInfo) -> dict[str, Any]:
    return {
        "metric": run.quality_metric,
        **_mean_with_interval(fold.quality, run.seed),
        **{column: _mean(mean_by(rows, "device", column)[1]) for column in QUALITIES},
    }


def _totals(rows: pl.DataFrame) -> dict[str, Any]:
    decisions = rows["decision"]
    sums = {name: _total(rows, name) for name in _SUMS}
    return {
        "counts": {name: int((decisions == name).sum()) for name in DECISIONS},
        "energy_j": {
            "total": sums["energy_j"],
            "low": sums["energy_j"],
            "high": sums["energy_j"],
            "by_stage": {stage: _total(rows, f"energy_j_{stage}") for stage in STAGES},
        },
        "bytes": {"down": sums["down_bytes"], "up": sums["up_bytes"]},
        "simulated_time_s": sums["time_s"],
    }


def _total(rows: pl.DataFrame, column: str) -> float | None:
    """Exactly rounded sum; one unknown addend makes the total unknown."""
    return _finite(math.fsum(_numbers(rows, column).tolist()))


def compared(arm: DeviceFold, reference: DeviceFold, seed: int) -> dict[str, Any]:
    """Saving and quality difference of one arm against another, paired by device."""
    arm, reference = paired(arm, reference)
    return {
        "energy_saving": _saving(arm.energy_j, reference.energy_j, seed),
        "quality_difference": _mean_with_interval(arm.quality - reference.quality, seed),
    }


def _saving(arm_j: Floats, reference_j: Floats, seed: int) -> dict[str, Any]:
    """1 minus the ratio of summed joules, resampling whole devices."""

    def statistic(index: Indices) -> Floats:
        return 1.0 - arm_j[index].sum(axis=1) / reference_j[index].sum(axis=1)

    spent_j = math.fsum(reference_j.tolist())
    mean = 1.0 - math.fsum(arm_j.tolist()) / spent_j if spent_j else math.nan
    return {"mean": _finite(mean), "ci95": _interval(statistic, len(arm_j), seed)}


def _mean_with_interval(per_device: Floats, seed: int) -> dict[str, Any]:
    known = per_device[~np.isnan(per_device)]
    ci95 = _interval(lambda index: known[index].mean(axis=1), len(known), seed)
    return {"mean": _mean(known), "ci95": ci95}


def _mean(per_device: Floats) -> float | None:
    known = per_device[~np.isnan(per_device)]
    return _finite(math.fsum(known.tolist()) / len(known)) if len(known) else None


def _interval(statistic: Callable[[Indices], Floats], count: int, seed: int) -> list[float | None]:
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
    return [_finite(float(low)), _finite(float(high))]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
