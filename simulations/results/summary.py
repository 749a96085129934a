"""Makes the summary of a run from its rows, with what is known and not known of its joules.

Joules, seconds and bytes add, so they are summed; quality is a mean over devices
(`simulations.results.device_means`). Low and high ends of joules are those of the coefficients'
draws (`simulations.uncertainty.estimate`); every number of joules stands in a ledger
(`simulations.results.ledgers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from fleettune.cost.hardware import TIERS
from simulations.experiment.headlines import HEADLINES, UNSEEN
from simulations.results.device_groups import compare_groups, group_by_class, stratify_by_data
from simulations.results.device_means import (
    DECISIONS,
    QUALITIES,
    STAGES,
    PerDevice,
    average_by,
    average_known,
    compare_arms,
    drop_stage,
    estimate_mean,
    finite,
    reduce_by_device,
    split_arms,
    sum_column,
)
from simulations.results.ledgers import arm_ledgers, host_ledger
from simulations.uncertainty.estimate import Uncertainty

ATTENDANCE = ("present", "late", "interrupted", "absent", "starved")
LABEL = (
    "joules and seconds are simulated, those of the device-total ledger unless said otherwise; "
    "low and high hold 95 % of the draws of all coefficients from their ranges; ci95 is a 95 % "
    "bootstrap interval over devices at central coefficients"
)
NOT_COVERED = (
    "decisions stay as simulated under every draw; batteries, hours of charging and interruptions "
    "are not drawn again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What was run: the facts that all arms share, and ``arms`` in the order of the experiment."""

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
    priced_as: str
    arms: Sequence[str] = ()

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
    energy_j: float | None = None
    energy_note: str = "joules not measured: no power meter was read"


def summarise(
    rows: pl.DataFrame, run: RunInfo, host: HostInfo, known: Uncertainty, *, network: bool = False
) -> dict[str, Any]:
    """Returns the JSON-ready summary of a run; a quantity that is unknown is None, never NaN.

    Arms stand in the order of `run`, behind the reference; those that it does not name, by name.

    Args:
        rows: One row per arm, device and round, in any order.
        run: What was run; names the headline metric and the reference arm.
        host: What it took on the host.
        known: What the coefficients' ranges make of these rows.
        network: Whether the network's ledger is counted.

    Raises:
        ValueError: If a column is missing, a row is doubled or the reference arm has no rows.
    """
    arms = split_arms(rows)
    if run.reference not in arms:
        raise ValueError(f"reference must be an arm of the run {sorted(arms)}: {run.reference!r}")
    per_device = {arm: reduce_by_device(part, run.quality_metric) for arm, part in arms.items()}
    unserved = {
        arm: reduce_by_device(drop_stage(part, "serve"), run.quality_metric)
        for arm, part in arms.items()
    }
    shown = sorted(arms, key=lambda arm: (arm != run.reference, _place(arm, run.arms), arm))
    return {
        "schema": 3,
        "run": _run(run, host),
        "arms": {
            arm: {
                "quality": _quality(part, per_device[arm], run),
                "counts": _counts(part["decision"], DECISIONS),
                **_attendance(part),
                "energy_j": _energy(part, arm, known, network=network),
                "bytes": {
                    "down": sum_column(part, "down_bytes"),
                    "up": sum_column(part, "up_bytes"),
                },
                "simulated_time_s": sum_column(part, "time_s"),
                "vs_reference": _versus(arm, per_device, unserved, run, known)
                | _who_pays(arm, arms, per_device, run),
            }
            for arm in shown
            for part in [arms[arm]]
        },
        "coefficients": {tier: int(run.coefficients.get(tier, 0)) for tier in TIERS},
        "coefficient_shares": dict(known.tiers),
        "monte_carlo": {"draws": known.draws, "seed": known.seed, "not_covered": NOT_COVERED},
        "host": host_ledger(host.host_seconds, host.energy_j, host.energy_note),
        "label": LABEL,
    }


def _run(run: RunInfo, host: HostInfo) -> dict[str, Any]:
    facts = asdict(run)
    for name in ("quality_metric", "reference", "coefficients", "arms"):
        del facts[name]
    measured = {
        "host_seconds": finite(host.host_seconds),
        "peak_rss_mb": finite(host.peak_rss_mb),
    }
    return facts | measured


def _quality(rows: pl.DataFrame, per_device: PerDevice, run: RunInfo) -> dict[str, Any]:
    # rows of earlier versions say nothing of unseen answers
    columns = (*QUALITIES, *([UNSEEN] if UNSEEN in rows.columns else ()))
    return {
        "metric": run.quality_metric,
        **estimate_mean(per_device.quality, per_device.devices, run.seed),
        **{column: average_known(average_by(rows, "device", column)[1]) for column in columns},
    }


def _attendance(rows: pl.DataFrame) -> dict[str, Any]:
    """Who took part: device nights by attendance, in all and by device class."""
    classes: list[str] = rows["profile"].unique().sort().to_list()
    parts = {name: rows.filter(pl.col("profile") == name) for name in classes}
    return {
        "attendance": _counts(rows["attendance"], ATTENDANCE),
        "by_class": {
            name: {
                "devices": part["device"].n_unique(),
                **_counts(part["attendance"], ATTENDANCE),
                "infeasible": int((part["decision"] == "infeasible").sum()),
                "wasted_j": sum_column(part, "energy_j_wasted"),
            }
            for name, part in parts.items()
        },
    }


def _energy(rows: pl.DataFrame, arm: str, known: Uncertainty, *, network: bool) -> dict[str, Any]:
    ledgers = arm_ledgers(rows, arm, known, network=network)
    whole = ledgers["device_total"]
    wasted_j = sum_column(rows, "energy_j_wasted")
    low, high = known.stages[arm]["wasted"]
    return {
        "total": whole.joules,
        "low": whole.low,
        "high": whole.high,
        "by_stage": {stage: sum_column(rows, f"energy_j_{stage}") for stage in STAGES},
        "by_stage_range": {stage: list(known.stages[arm][stage]) for stage in STAGES},
        "wasted_j": {"total": wasted_j, "low": low, "high": high},
        "ledgers": {name: asdict(ledger) for name, ledger in ledgers.items()},
    }


def _versus(
    arm: str,
    per_device: Mapping[str, PerDevice],
    unserved: Mapping[str, PerDevice],
    run: RunInfo,
    known: Uncertainty,
) -> dict[str, Any]:
    found = compare_arms(per_device[arm], per_device[run.reference], run.seed)
    without = compare_arms(unserved[arm], unserved[run.reference], run.seed)
    found["energy_saving_without_serving"] = without["energy_saving"]
    saving = known.saving[arm]
    found["energy_saving"] |= {
        "ci95_coefficients": list(saving.by_coefficients),
        "ci95_both": list(saving.by_both),
        "scale_free": saving.is_scale_free,
        "largest_shift": saving.largest_shift,
    }
    return {"reference": run.reference, **found, "share_flipped": known.flipped[arm]}


def _who_pays(
    arm: str, arms: Mapping[str, pl.DataFrame], per_device: Mapping[str, PerDevice], run: RunInfo
) -> dict[str, Any]:
    """What an arm saves and changes by device class, and by how much its users wrote."""
    rows, pair = arms[arm], (per_device[arm], per_device[run.reference])
    strata = stratify_by_data(arms[run.reference])
    amounts = {name: one.devices for name, one in strata.items()}
    by_data = compare_groups(rows, pair, amounts, run.seed)
    return {
        "by_class": compare_groups(rows, pair, group_by_class(rows), run.seed),
        "by_data": {
            name: {"exchanges": list(strata[name].exchanges), **one}
            for name, one in by_data.items()
        },
    }


def _place(arm: str, order: Sequence[str]) -> int:
    return order.index(arm) if arm in order else len(order)


def _counts(words: pl.Series, names: tuple[str, ...]) -> dict[str, int]:
    return {name: int((words == name).sum()) for name in names}
