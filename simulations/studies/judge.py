"""What the rows of a study's worlds say about its claims, and each verdict in words.

A claim compares two arms, paired by device, over all seeds of a world.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

import polars as pl

from simulations.experiment.study_settings import SINGLE_MEASURES, Claim
from simulations.results.device_groups import stratify_by_data
from simulations.results.device_means import (
    compare_arms,
    compare_columns,
    reduce_by_device,
    split_arms,
)
from simulations.studies.claim_measures import (
    Three,
    estimate_above_line,
    estimate_equal_quality_cost,
    estimate_retained,
)
from simulations.studies.decision_measures import (
    estimate_above_release,
    estimate_auc,
    estimate_retune_rate,
    estimate_share_within,
)
from simulations.studies.explanations import level_growth, strongest_right

Arms = Mapping[str, pl.DataFrame]
"""The rows of every arm with the columns of `simulations.results.derived_columns`."""
Entries = Sequence[Mapping[str, Any]]
"""What a catalogue offered to start from (`strategies.catalogue.cataloguer`)."""

HOLDS, NOT_SHOWN = "holds", "not shown"
"""How a claim's verdict begins, but where the interval rules the claim out."""
_SINGLE: Mapping[str, Callable[[pl.DataFrame, float], dict[str, Any]]] = {
    "retune_rate": lambda rows, _: estimate_retune_rate(rows),
    "score_auc": lambda rows, margin: estimate_auc(rows, margin, within=False),
    "score_auc_within": lambda rows, margin: estimate_auc(rows, margin, within=True),
    "gain_share_within": lambda rows, _: estimate_share_within(rows),
    "gain_above_release": lambda rows, _: estimate_above_release(rows),
}
"""How each measure of one arm follows from its rows and the claim's margin."""


def judge_claims(
    worlds: Mapping[str, pl.DataFrame],
    claims: Sequence[Claim],
    metric: str,
    catalogues: Mapping[str, Entries] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Returns every claim with its estimate, 95 % interval, threshold and whether it holds.

    Args:
        worlds: The rows of every world, the first one first.
        claims: What to judge.
        metric: The headline metric.
        catalogues: What was offered to start from, by world.

    Raises:
        ValueError: If a claim is about an arm without rows.
    """
    arms = {name: split_arms(rows) for name, rows in worlds.items()}
    first = next(iter(worlds))
    return [
        _judge(claim, catalogues.get(claim.world or first, ()), arms, metric) for claim in claims
    ]


def judge_everywhere(
    worlds: Mapping[str, pl.DataFrame], claims: Sequence[Claim], metric: str
) -> list[dict[str, Any]]:
    """Returns for every claim that names no world its outcome in each, and the share that holds.

    Args:
        worlds: The rows of every world, as `judge_claims` takes them.
        claims: The study's claims.
        metric: The headline metric.
    """
    found: list[dict[str, Any]] = []
    for claim in claims:
        if claim.world or claim.against_world:
            continue
        judged = {
            world: judge_claims({world: rows}, [replace(claim, world=world)], metric)[0]
            for world, rows in worlds.items()
            if {*claim.ladder, *claim.against_ladder} <= {*rows["arm"].unique()}
            and all(
                not names or rows["release_name"].is_in(names).any()
                for names in (claim.releases, claim.less_releases)
            )
        }
        held = sum(one["holds"] for one in judged.values())
        found.append({"claim": claim.claim, "worlds": judged, "share": held / len(judged)})
    return found


def explain_verdict(outcome: Mapping[str, Any]) -> str:
    """Returns whether a claim holds; where not, if the interval rules it out or leaves it open."""
    if outcome["holds"]:
        return HOLDS
    low, high = outcome["ci95"]
    if low is None and high is None:
        return f"{NOT_SHOWN}: unknown"
    threshold, direction = outcome["threshold"], outcome["direction"]
    out = {
        "above": high is not None and high <= threshold,
        "below": low is not None and low >= threshold,
        "at_most": low is not None and low > threshold,
        "not_above": True,
        "within": (low is not None and low > threshold) or (high is not None and high < -threshold),
    }[direction]
    return "does not hold" if out else f"{NOT_SHOWN}: the interval holds the threshold"


def _judge(
    claim: Claim, offered: Entries, worlds: Mapping[str, Arms], metric: str
) -> dict[str, Any]:
    here = worlds[claim.world or next(iter(worlds))]
    there = worlds[claim.against_world] if claim.against_world else here
    for arms, ladder in ((here, claim.ladder), (there, claim.against_ladder)):
        missing = [name for name in ladder if name not in arms]
        if missing:
            raise ValueError(f"claim {claim.claim} is about arm {missing[0]!r}, which did not run")
    if claim.measure == "words":
        found = strongest_right(offered)
    elif claim.measure == "levels":
        found = level_growth(offered, claim.column)
    elif claim.measure in SINGLE_MEASURES:
        rows = _keep_releases(here[claim.arm], claim.releases)
        found = _SINGLE[claim.measure](rows, claim.margin)
    else:
        found = _compare(claim, here, there, metric)
    low, high = found["ci95"]
    return {
        "claim": claim.claim,
        "estimate": found["mean"],
        "ci95": [low, high],
        "threshold": claim.threshold,
        "direction": claim.direction,
        "holds": _holds(claim, low, high),
    }


def _compare(claim: Claim, here: Arms, there: Arms, metric: str) -> dict[str, Any]:
    """Returns the estimate of a measure of several arms."""

    def rows_of(releases: Sequence[str]) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
        return (
            [_keep_releases(here[name], releases) for name in claim.ladder],
            [_keep_releases(there[name], releases) for name in claim.against_ladder],
        )

    ladder, against = rows_of(claim.releases)
    if claim.stratum:
        kept = stratify_by_data(there[claim.against])[claim.stratum].devices
        ladder, against = (
            [rows.filter(pl.col("device").is_in(kept)) for rows in side]
            for side in (ladder, against)
        )
    arm, other = ladder[-1], against[-1]
    if claim.measure == "above_line":
        return estimate_above_line(arm, against, claim.column, metric)
    if claim.measure == "equal_quality_cost":
        return estimate_equal_quality_cost(ladder, against, claim.column, metric)
    if claim.measure == "retained":
        earlier = None
        if claim.less_releases:
            before, base = rows_of(claim.less_releases)
            earlier = cast(Three, (before[-1], *base))
        return estimate_retained(cast(Three, (arm, *against)), claim.column, earlier)
    if claim.column:
        return compare_columns(arm, other, claim.column, seed=0)[claim.measure]
    return compare_arms(reduce_by_device(arm, metric), reduce_by_device(other, metric), seed=0)[
        claim.measure
    ]


def _keep_releases(rows: pl.DataFrame, releases: Sequence[str]) -> pl.DataFrame:
    return rows.filter(pl.col("release_name").is_in(releases)) if releases else rows


def _holds(claim: Claim, low: float | None, high: float | None) -> bool:
    """Returns whether an interval is where the claim says; an unknown end never is."""
    if low is None or high is None:
        known = low if claim.direction in ("above", "not_above") else high
        if known is None or claim.direction == "within":
            return False
    low, high = (float("nan") if end is None else end for end in (low, high))
    return {
        "above": low > claim.threshold,
        "below": high < claim.threshold,
        "at_most": high <= claim.threshold,
        "not_above": low <= claim.threshold,
        "within": -claim.threshold <= low and high <= claim.threshold,
    }[claim.direction]
