"""A study's grid: every claim in every world where its arms ran, and where it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from simulations.experiment.study_settings import Claim
from simulations.studies.judge import judge

_OF_THE_FIRST = ("forecast_coverage", "forecast_half_width")
"""Measures that need more devices than a small world has."""


def over_worlds(
    worlds: Mapping[str, pl.DataFrame], claims: Sequence[Claim], metric: str
) -> list[dict[str, Any]]:
    """Returns for every claim that names no world the estimate and verdict in each, and the share.

    Args:
        worlds: The rows of every world, as `simulations.studies.judge.judge` takes them.
        claims: The study's claims.
        metric: The headline metric.
    """
    arms = {world: set(rows["arm"].unique()) for world, rows in worlds.items()}
    found: list[dict[str, Any]] = []
    for claim in claims:
        if claim.world or claim.against_world or claim.measure in _OF_THE_FIRST:
            continue
        asked = {*claim.ladder, *claim.against_ladder}
        judged = {
            world: judge({world: rows}, [replace(claim, world=world)], metric)[0]
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


def grid_cells(grid: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Column titles and one row of cells per claim: its estimate in every world, marked."""
    worlds = list(dict.fromkeys(world for one in grid for world in one["worlds"]))
    rows = [
        [
            one["claim"],
            *(_cell(one["worlds"].get(world)) for world in worlds),
            f"{100 * one['share']:.0f} %",
        ]
        for one in grid
    ]
    return ["claim", *worlds, "holds in"], rows


def _cell(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None or outcome["estimate"] is None:
        return "n/a"
    return f"{outcome['estimate']:+.3f} {'holds' if outcome['holds'] else 'not shown'}"
