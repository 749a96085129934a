"""Judgement: what the rows of a study's worlds say about its claims.

A claim compares two arms, paired by device, over all seeds of a world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

import polars as pl

from simulations.experiment.study_settings import SINGLE_MEASURES, Claim
from simulations.results.device_means import (
    compare_arms,
    compare_columns,
    reduce_by_device,
    split_arms,
)
from simulations.studies.decision_measures import (
    Three,
    above_line,
    retained,
    retune_rate,
    score_auc,
)
from simulations.studies.equal_quality_cost import reach_saving
from simulations.studies.explanations import level_growth, strongest_right
from simulations.studies.forecast_resampling import forecast_coverage, forecast_half_width

HOLDS, NOT_SHOWN = "holds", "not shown"
"""How a claim's verdict begins, but where the interval rules the claim out."""
_OF_MANY_DEVICES = ("forecast_coverage", "forecast_half_width")
"""Measures that need more devices than a small world has."""


def judge_claims(
    worlds: Mapping[str, pl.DataFrame],
    claims: Sequence[Claim],
    metric: str,
    catalogues: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Returns every claim with its estimate, 95 % interval, threshold and whether it holds.

    Args:
        worlds: The rows of every world, the first one first.
        claims: What to judge.
        metric: The headline metric.
        catalogues: What was offered to start from, by world (`strategies.catalogue.cataloguer`).

    Raises:
        ValueError: If a claim is about an arm without rows.
    """
    arms = {name: split_arms(rows) for name, rows in worlds.items()}
    first = next(iter(worlds))
    offered = [catalogues.get(claim.world or first, ()) for claim in claims]
    return [_judge(*claim, arms, metric) for claim in zip(claims, offered, strict=True)]


Arms = Mapping[str, pl.DataFrame]


def _judge(
    claim: Claim, offered: Sequence[Mapping[str, Any]], worlds: Mapping[str, Arms], metric: str
) -> dict[str, Any]:
    here = worlds[claim.world or next(iter(worlds))]
    there = worlds[claim.against_world] if claim.against_world else here
    for arms, ladder in ((here, claim.ladder), (there, claim.against_ladder)):
        missing = [name for name in ladder if name not in arms]
        if missing:
            raise ValueError(f"claim {claim.claim} is about arm {missing[0]!r}, which did not run")
    earlier = _keep_releases(here, claim.less_releases) if claim.less_releases else None
    here, there = (_keep_releases(arms, claim.releases) for arms in (here, there))
    if claim.measure == "words":
        found = strongest_right(offered)
    elif claim.measure == "levels":
        found = level_growth(offered, claim.column)
    else:
        found = _measure(claim, here, there, earlier, metric)
    low, high = found["ci95"]
    return {
        "claim": claim.claim,
        "estimate": found["mean"],
        "ci95": [low, high],
        "threshold": claim.threshold,
        "direction": claim.direction,
        "holds": _holds(claim, low, high),
    }


def _keep_releases(arms: Arms, releases: Sequence[str]) -> Arms:
    if not releases:
        return arms
    return {
        name: rows.filter(pl.col("release_name").is_in(releases)) for name, rows in arms.items()
    }


def _measure(
    claim: Claim, here: Arms, there: Arms, earlier: Arms | None, metric: str
) -> dict[str, Any]:
    if claim.measure in SINGLE_MEASURES:
        return _measure_alone(claim, here[claim.arm])
    if claim.measure == "above_line":
        line = [there[name] for name in claim.against_ladder]
        return above_line(here[claim.arm], line, claim.column, metric)
    if claim.measure == "retained":
        now, *before = (
            (arms[claim.arm], *(arms[name] for name in claim.against_ladder))
            for arms in (here, earlier)
            if arms is not None
        )
        return retained(cast(Three, now), claim.column, *cast(list[Three], before))
    if claim.measure == "reach":
        ladder = [here[name] for name in claim.ladder]
        against = [there[name] for name in claim.against_ladder]
        return reach_saving(ladder, against, claim.column, metric)
    if claim.column:
        both = here[claim.arm], there[claim.against]
        return compare_columns(*both, claim.column, seed=0)[claim.measure]
    both = reduce_by_device(here[claim.arm], metric), reduce_by_device(there[claim.against], metric)
    return compare_arms(*both, seed=0)[claim.measure]


def _measure_alone(claim: Claim, rows: pl.DataFrame) -> dict[str, Any]:
    if claim.measure == "retune_rate":
        return retune_rate(rows)
    if claim.measure == "forecast_coverage":
        return forecast_coverage(rows)
    if claim.measure == "forecast_half_width":
        return forecast_half_width(rows)
    return score_auc(rows, claim.margin, within=claim.measure == "score_auc_within")


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


def judge_everywhere(
    worlds: Mapping[str, pl.DataFrame], claims: Sequence[Claim], metric: str
) -> list[dict[str, Any]]:
    """Returns for every claim that names no world the estimate and verdict in each, and the share.

    Args:
        worlds: The rows of every world, as `judge_claims` takes them.
        claims: The study's claims.
        metric: The headline metric.
    """
    arms = {world: set(rows["arm"].unique()) for world, rows in worlds.items()}
    found: list[dict[str, Any]] = []
    for claim in claims:
        if claim.world or claim.against_world or claim.measure in _OF_MANY_DEVICES:
            continue
        asked = {*claim.ladder, *claim.against_ladder}
        judged = {
            world: judge_claims({world: rows}, [replace(claim, world=world)], metric)[0]
            for world, rows in worlds.items()
            if asked <= arms[world]
            and _has_releases(rows, claim.releases)
            and _has_releases(rows, claim.less_releases)
        }
        held = sum(one["holds"] for one in judged.values())
        found.append({"claim": claim.claim, "worlds": judged, "share": held / len(judged)})
    return found


def _has_releases(rows: pl.DataFrame, releases: Sequence[str]) -> bool:
    return not releases or bool(rows["release_name"].is_in(releases).any())


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
