"""The tables of a study's page: every claim with its verdict, the arms of a world side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from simulations.experiment.study_settings import Claim
from simulations.report.tables import (
    METRICS,
    energy_range,
    joules_caption,
    marked,
    number,
    reference_arm,
    with_interval,
)
from simulations.results.derived_columns import PATCH_BYTES, TUNING_J
from simulations.results.device_means import (
    fold_devices,
    mean_by,
    mean_with_interval,
    split_arms,
    total,
)

Summary = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFold:
    """One arm of a world over all its seeds; joules are simulated.

    Attributes:
        quality: Mean headline quality over devices, with its interval.
        nll: Mean over devices of what the rows' column says, in nats; None if never evaluated.
        tuning_j: Joules of probing and tuning per device, with the coefficients' low and high end.
        total_j: All joules of the arm (device-total ledger), with low and high end.
        tiers: Shares of tiers behind `tuning_j`: those of the arm's device-marginal ledger.
        total_tiers: Shares of tiers behind `total_j`.
        tunes: Tunes per device.
        steps: Optimizer steps per tune; None without any tune.
        peak_bytes: Largest memory of a tune, done or not; None without any.
        patch_bytes: Bytes sent per tune; None without any.
        cache_bytes: Bytes of the prefix cache per tune; None without any.
    """

    quality: Mapping[str, Any]
    nll: float | None
    tuning_j: tuple[float | None, float | None, float | None]
    total_j: tuple[float | None, float | None, float | None]
    tiers: Mapping[str, float]
    total_tiers: Mapping[str, float]
    tunes: float
    steps: float | None
    peak_bytes: float | None
    patch_bytes: float | None
    cache_bytes: float | None


def fold_world(rows: pl.DataFrame, summaries: Sequence[Summary], metric: str) -> dict[str, ArmFold]:
    """Returns every arm of a world, in the order of the first part's summary, the reference first.

    Args:
        rows: The rows of all parts, with derived columns; devices of different seeds differ.
        summaries: The summary of every part.
        metric: The headline metric.
    """
    arms = split_arms(rows)
    names = sorted(arms, key=lambda name: (name != reference_arm(summaries[0]), name))
    return {
        name: _fold(arms[name], [one["arms"][name] for one in summaries], metric) for name in names
    }


def _fold(rows: pl.DataFrame, parts: Sequence[Summary], metric: str) -> ArmFold:
    devices = rows["device"].n_unique()
    tuned = rows.filter(pl.col("tune_steps") > 0)
    joules = [part["energy_j"] for part in parts]
    spent = total(rows, TUNING_J)
    low, high = (
        _added([one["by_stage_range"][stage][end] for one in joules for stage in ("probe", "tune")])
        for end in (0, 1)
    )
    peak: Any = rows["peak_bytes"].max()
    return ArmFold(
        quality=mean_with_interval(fold_devices(rows, metric).quality, seed=0),
        nll=mean_with_interval(mean_by(rows, "device", "nll")[1], seed=0)["mean"],
        tuning_j=(_per(spent, devices), _per(low, devices), _per(high, devices)),
        total_j=(
            _added([one["total"] for one in joules]),
            _added([one["low"] for one in joules]),
            _added([one["high"] for one in joules]),
        ),
        tiers=_mean([one["ledgers"]["device_marginal"]["tiers"] for one in joules]),
        total_tiers=_mean([one["ledgers"]["device_total"]["tiers"] for one in joules]),
        tunes=tuned.height / devices,
        steps=_mean_of(tuned, "tune_steps"),
        peak_bytes=float(peak) if peak else None,
        patch_bytes=_mean_of(tuned, PATCH_BYTES),
        cache_bytes=_mean_of(tuned, "cache_bytes"),
    )


def claim_cells(
    claims: Sequence[Claim], outcomes: Sequence[Mapping[str, Any]], metric: str
) -> tuple[list[str], list[list[str]]]:
    """Column titles and one row of cells per claim, in the order of the study."""
    columns = ["claim", "estimate [95 %]", "asked", "verdict", "what is compared"]
    rows = [
        [
            one["claim"],
            _estimate(one),
            f"{one['direction'].replace('_', ' ')} {one['threshold']:g}",
            verdict(one),
            compared_words(claim, metric),
        ]
        for claim, one in zip(claims, outcomes, strict=True)
    ]
    return columns, rows


def _estimate(outcome: Mapping[str, Any]) -> str:
    """An estimate with its interval; an end that no number can give is named so."""
    if outcome["ci95"] == [None, None]:
        return number(outcome["estimate"], "+.4f")
    low, high = (number(end, "+.4f") for end in outcome["ci95"])
    return f"{number(outcome['estimate'], '+.4f')} [{low}, {high}]"


def verdict(outcome: Mapping[str, Any]) -> str:
    """Returns whether a claim holds; where not, if the interval rules it out or leaves it open."""
    if outcome["holds"]:
        return "holds"
    low, high = outcome["ci95"]
    if low is None and high is None:
        return "not shown: unknown"
    threshold, direction = outcome["threshold"], outcome["direction"]
    out = {
        "above": high is not None and high <= threshold,
        "below": low is not None and low >= threshold,
        "at_most": low is not None and low > threshold,
        "not_above": True,
        "within": (low is not None and low > threshold) or (high is not None and high < -threshold),
    }[direction]
    return "does not hold" if out else "not shown: the interval holds the threshold"


def compared_words(claim: Claim, metric: str) -> str:
    """Returns in words what a claim's estimate is."""
    arm, against = (
        f"{name} in {world}" if world else name
        for name, world in ((claim.arm, claim.world), (claim.against, claim.against_world))
    )
    column = claim.column
    return {
        "quality_difference": f"{METRICS[metric]} of {arm} minus that of {against}",
        "energy_saving": f"share of the simulated joules of {against} that {arm} saves, "
        "device-total ledger",
        "difference": f"{column} of {arm} minus that of {against}",
        "saving": f"share of {column} of {against} that {arm} saves",
        "words": "share of the offered entries whose strongest word is on the right side of the "
        "right axis",
        "levels": f"growth of the distance from the lowest level of {column} to the next ones",
        "reach": f"share of {column} that {arm} saves on its way to the quality of {against}",
        "above_line": f"{METRICS[metric]} of {arm} above the line through "
        f"{', '.join(claim.against_ladder)} over {column}",
        "retained": f"share that {arm} keeps of what {against} gains over "
        f"{', '.join(claim.against_rungs)}, in {column}",
        "score_auc": f"ROC-AUC of what {arm} decides by, for a gain above {claim.margin:g} nats",
        "score_auc_within": f"the same of {arm} within releases, {claim.margin:g} nats",
        "retune_rate": f"share of retunes among the decisions of {arm}",
        "forecast_coverage": f"share of first cohorts of {arm} whose interval covers the outcome",
        "forecast_half_width": f"half-width of such an interval of {arm}, as cohorts grew",
    }[claim.measure] + _which_releases(claim)


def _which_releases(claim: Claim) -> str:
    less = f", less that on {', '.join(claim.less_releases)}" if claim.less_releases else ""
    return f"; releases {', '.join(claim.releases)}{less}" if claim.releases else ""


def arm_cells(folds: Mapping[str, ArmFold], metric: str) -> tuple[list[str], list[list[str]]]:
    """Column titles and one row of cells per arm of a world."""
    columns = [
        "arm",
        f"quality: {METRICS[metric]} [95 %]",
        "nll, nats",
        "simulated energy of tuning, per device (low to high)",
        "simulated energy, whole fleet (low to high)",
        "tunes per device",
        "steps per tune",
        "peak memory, GB",
        "patch, kB",
        "cache, kB",
    ]
    rows = [
        [
            name,
            with_interval(fold.quality),
            number(fold.nll),
            marked(energy_range(*fold.tuning_j), fold.tiers if fold.tuning_j[0] else {}),
            marked(energy_range(*fold.total_j), fold.total_tiers),
            number(fold.tunes, ".2f"),
            number(fold.steps, ".1f"),
            _scaled(fold.peak_bytes, 1e9, ".2f"),
            _scaled(fold.patch_bytes, 1e3, ",.0f"),
            _scaled(fold.cache_bytes, 1e3, ",.0f"),
        ]
        for name, fold in folds.items()
    ]
    return columns, rows


def arms_caption(summary: Summary, seeds: int) -> str:
    """Returns what the columns of `arm_cells` are."""
    return (
        "Energy of tuning: probes and tunes, above the idle draw (device-marginal ledger), as a "
        "mean over devices. Energy of the whole fleet: everything, idle included. Peak memory: of "
        "the largest step of a tune, as priced, whether it fitted or not. Patch: what is sent of "
        "it, as priced. Cache: hidden states below the cut, kept while tuning, in simulated bytes. "
        f"Quality intervals over devices of {seeds} seed{'s' if seeds > 1 else ''}; low to high "
        f"added over seeds. {joules_caption(summary, 'device-marginal and device-total')} "
        "E: rests mostly on estimates."
    )


def _scaled(value: float | None, unit: float, spec: str) -> str:
    return number(None if value is None else value / unit, spec)


def _per(value: float | None, count: int) -> float | None:
    return None if value is None else value / count


def _added(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def _mean(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean share of every tier; none where a part has none."""
    if not all(shares):
        return {}
    return {tier: math.fsum(one[tier] for one in shares) / len(shares) for tier in shares[0]}


def _mean_of(rows: pl.DataFrame, column: str) -> float | None:
    return _per(total(rows, column), rows.height) if rows.height else None
