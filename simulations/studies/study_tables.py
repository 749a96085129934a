"""The tables of a study's page: claims, the arms of a world side by side, what arms decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from simulations.experiment.headlines import HEADLINES
from simulations.experiment.study_settings import Claim
from simulations.report.formats import (
    UNKNOWN,
    format_interval,
    format_joules_range,
    format_number,
    format_share,
    mark_estimates,
)
from simulations.report.page import Row
from simulations.report.summary_tables import Summary, get_reference
from simulations.results.derived_columns import PATCH_BYTES, RETUNING_J, TUNING_J
from simulations.results.device_means import (
    average_by,
    average_known,
    estimate_mean,
    reduce_by_device,
    split_arms,
    sum_column,
)
from simulations.studies.decision_measures import LABEL, estimate_auc
from simulations.studies.judge import HOLDS, NOT_SHOWN, Arms, explain_verdict

Range = tuple[float | None, float | None, float | None]
"""A value with its low and high end; None where unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyArm:
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
    tuning_j: Range
    total_j: Range
    tiers: Mapping[str, float]
    total_tiers: Mapping[str, float]
    tunes: float
    steps: float | None
    peak_bytes: float | None
    patch_bytes: float | None
    cache_bytes: float | None


def summarise_arms(
    rows: pl.DataFrame, summaries: Sequence[Summary], metric: str
) -> dict[str, StudyArm]:
    """Returns every arm of a world, the reference of the first summary first, then by name.

    Args:
        rows: The rows of all parts, with derived columns; devices of different seeds differ.
        summaries: The summary of every part.
        metric: The headline metric.
    """
    arms, reference = split_arms(rows), get_reference(summaries[0])
    return {
        name: _summarise(arms[name], [one["arms"][name] for one in summaries], metric)
        for name in sorted(arms, key=lambda name: (name != reference, name))
    }


def _summarise(rows: pl.DataFrame, parts: Sequence[Mapping[str, Any]], metric: str) -> StudyArm:
    quality = reduce_by_device(rows, metric)
    devices = len(quality.devices)
    tuned = rows.filter(pl.col("tune_steps") > 0)
    joules = [part["energy_j"] for part in parts]
    spent = sum_column(rows, TUNING_J)
    low, high = (
        _add([one["by_stage_range"][stage][end] for one in joules for stage in ("probe", "tune")])
        for end in (0, 1)
    )
    whole, least, most = (_add([one[end] for one in joules]) for end in ("total", "low", "high"))
    peak: Any = rows["peak_bytes"].max()
    return StudyArm(
        quality=estimate_mean(quality.quality, quality.devices, seed=0),
        nll=average_known(average_by(rows, "device", "nll")[1]),
        tuning_j=(_divide(spent, devices), _divide(low, devices), _divide(high, devices)),
        total_j=(whole, least, most),
        tiers=_average([one["ledgers"]["device_marginal"]["tiers"] for one in joules]),
        total_tiers=_average([one["ledgers"]["device_total"]["tiers"] for one in joules]),
        tunes=tuned.height / devices,
        steps=_divide(sum_column(tuned, "tune_steps"), tuned.height),
        peak_bytes=float(peak) if peak else None,
        patch_bytes=_divide(sum_column(tuned, PATCH_BYTES), tuned.height),
        cache_bytes=_divide(sum_column(tuned, "cache_bytes"), tuned.height),
    )


def _divide(value: float | None, count: int) -> float | None:
    return value / count if value is not None and count else None


def _add(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def _average(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean share of every tier; none where a part has none."""
    if not all(shares):
        return {}
    return {tier: math.fsum(one[tier] for one in shares) / len(shares) for tier in shares[0]}


def tabulate_arms(arms: Mapping[str, StudyArm], metric: str) -> list[Row]:
    """Returns a row per arm of a world."""
    rows: list[Row] = []
    for name, arm in arms.items():
        tuning, whole = format_joules_range(*arm.tuning_j), format_joules_range(*arm.total_j)
        tuning = mark_estimates(tuning, arm.tiers if arm.tuning_j[0] else {})
        rows.append(
            {
                "arm": name,
                f"quality: {HEADLINES[metric].words} [95 %]": format_interval(arm.quality),
                "nll, nats": format_number(arm.nll),
                "simulated energy of tuning, per device (low to high)": tuning,
                "simulated energy, whole fleet (low to high)": mark_estimates(
                    whole, arm.total_tiers
                ),
                "tunes per device": format_number(arm.tunes, ".2f"),
                "steps per tune": format_number(arm.steps, ".1f"),
                "peak memory, GB": format_number(arm.peak_bytes, ".2f", per=1e9),
                "patch, kB": format_number(arm.patch_bytes, ",.0f", per=1e3),
                "cache, kB": format_number(arm.cache_bytes, ",.0f", per=1e3),
            }
        )
    return rows


def tabulate_claims(
    claims: Sequence[Claim], outcomes: Sequence[Mapping[str, Any]], metric: str
) -> list[Row]:
    """Returns a row per claim, in the order of the study."""
    return [
        {
            "claim": one["claim"],
            "estimate [95 %]": _format_estimate(one),
            "asked": f"{one['direction'].replace('_', ' ')} {one['threshold']:g}",
            "verdict": explain_verdict(one),
            "what is compared": describe_comparison(claim, metric),
        }
        for claim, one in zip(claims, outcomes, strict=True)
    ]


def _format_estimate(outcome: Mapping[str, Any]) -> str:
    """Returns an estimate with its interval; an end that no number can give is named so."""
    mean, low, high = (
        format_number(one, "+.4f") for one in (outcome["estimate"], *outcome["ci95"])
    )
    return mean if outcome["ci95"] == [None, None] else f"{mean} [{low}, {high}]"


def describe_comparison(claim: Claim, metric: str) -> str:
    """Returns in words what a claim's estimate is."""
    arm, against = (
        f"{name} in {world}" if world else name
        for name, world in ((claim.arm, claim.world), (claim.against, claim.against_world))
    )
    column = claim.column
    return {
        "quality_difference": f"{HEADLINES[metric].words} of {arm} minus that of {against}",
        "energy_saving": f"share of the simulated joules of {against} that {arm} saves, "
        "device-total ledger",
        "difference": f"{column} of {arm} minus that of {against}",
        "saving": f"share of {column} of {against} that {arm} saves",
        "words": "share of the offered entries whose strongest word is on the right side of the "
        "right axis",
        "levels": f"growth of the distance from the lowest level of {column} to the next ones",
        "equal_quality_cost": f"share of {column} that {arm} saves on its way to the quality of "
        f"{against}",
        "above_line": f"{HEADLINES[metric].words} of {arm} above the line through "
        f"{', '.join(claim.against_ladder)} over {column}",
        "retained": f"share that {arm} keeps of what {against} gains over "
        f"{', '.join(claim.against_rungs)}, in {column}",
        "score_auc": f"ROC-AUC of what {arm} decides by, for a gain above {claim.margin:g} nats",
        "score_auc_within": f"the same of {arm} within releases, {claim.margin:g} nats",
        "gain_share_within": f"share of the variance of a retune's gain between devices ({arm})",
        "gain_above_release": f"{arm} against the best decision per release, nats per decision",
        "retune_rate": f"share of retunes among the decisions of {arm}",
    }[claim.measure] + _name_part(claim)


def _name_part(claim: Claim) -> str:
    less = f", less that on {', '.join(claim.less_releases)}" if claim.less_releases else ""
    releases = f"; releases {', '.join(claim.releases)}{less}" if claim.releases else ""
    return releases + (f"; the {claim.stratum} third of the users" if claim.stratum else "")


def list_deciders(arms: Arms) -> list[str]:
    """Returns the arms that decide anything, in order."""
    return [name for name, rows in arms.items() if rows["decided"].sum()]


def list_releases(arms: Arms) -> list[str]:
    """Returns the names of the releases that were decided about, in their order."""
    every = pl.concat([rows.filter(pl.col("decided") == 1) for rows in arms.values()])
    order = every.group_by("release_name").agg(pl.col("release").min()).sort("release")
    return order["release_name"].to_list()


def has_decisions(arms: Arms) -> bool:
    """Returns whether there is anything to show: decisions with labels of the observer's."""
    wanted = ("decided", LABEL, "release_name")
    return any(
        all(name in rows.columns for name in wanted)
        and rows.filter((pl.col("decided") == 1) & pl.col(LABEL).is_not_null()).height
        for rows in arms.values()
    ) and bool(list_releases(arms))


def tabulate_retunes(arms: Arms) -> list[Row]:
    """Returns a row per arm: retunes of its decisions by release, with their simulated joules."""
    rows: list[Row] = []
    for name in list_deciders(arms):
        part = arms[name].filter(pl.col("decided") == 1)
        devices = arms[name]["device"].n_unique()
        row = {"arm": name}
        for release in list_releases(arms):
            own = part.filter(pl.col("release_name") == release)
            retuned = f"{int(own['retuned'].sum())} of {own.height}"
            row[release] = retuned if own.height else UNKNOWN
        row["retunes per device"] = format_number(float(part["retuned"].sum()) / devices, ".2f")
        joules = float(part[RETUNING_J].sum()) / devices
        rows.append(row | {"J deciding and retuning": format_number(joules, ",.0f")})
    return rows


def tabulate_scores(arms: Arms, margin: float) -> list[Row]:
    """Returns a row per arm: how well its score tells whom a retune helps, in all and by release.

    Args:
        arms: Rows by arm.
        margin: Nats per token that a retune has to gain to count as help.
    """
    rows: list[Row] = []
    for name in list_deciders(arms):
        part = arms[name].filter((pl.col("decided") == 1) & pl.col(LABEL).is_not_null())
        if not part.height:
            continue
        row = {
            "arm": name,
            "a retune helps": f"{int((part[LABEL] > margin).sum())} of {part.height}",
            "ROC-AUC [95 %]": format_interval(estimate_auc(part, margin, within=False)),
            "within releases [95 %]": format_interval(estimate_auc(part, margin, within=True)),
        }
        for release in list_releases(arms):
            own = part.filter(pl.col("release_name") == release)
            row[release] = format_number(estimate_auc(own, margin, within=True)["mean"])
        rows.append(row)
    return rows


def tabulate_grid(grid: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Returns a row per claim: its estimate in every world, and the share in which it holds."""
    worlds = list(dict.fromkeys(world for one in grid for world in one["worlds"]))
    return [
        {"claim": one["claim"]}
        | {world: _format_outcome(one["worlds"].get(world)) for world in worlds}
        | {"holds in": format_share(one["share"], digits=0)}
        for one in grid
    ]


def _format_outcome(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None or outcome["estimate"] is None:
        return UNKNOWN
    return f"{outcome['estimate']:+.3f} {HOLDS if outcome['holds'] else NOT_SHOWN}"
