"""The page of a study: claims with their verdicts, and for every world its arms side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from simulations.experiment.study_settings import StudySettings
from simulations.report.page import write_page
from simulations.report.row_tables import tabulate_catalogue
from simulations.report.summary_tables import (
    Summary,
    describe_joules,
    describe_pricing,
    get_metric,
)
from simulations.results.device_means import split_arms
from simulations.results.summary import LABEL, NOT_COVERED
from simulations.studies import decision_measures
from simulations.studies.judge import Arms
from simulations.studies.study_figures import (
    draw_chord,
    draw_pareto,
    draw_scores,
    draw_sweep,
)
from simulations.studies.study_tables import (
    StudyArm,
    has_decisions,
    summarise_arms,
    tabulate_arms,
    tabulate_claims,
    tabulate_grid,
    tabulate_retunes,
    tabulate_scores,
)
from simulations.studies.study_text import write_study_text

MARGIN = 0.05
"""Nats per token that a retune has to gain to count as help, on the page."""
OURS = "edgetune"
"""The arm whose scores are drawn."""
_MARGINAL = "device-marginal"
"""Ledger of single stages: above the idle draw."""


def write_study_page(
    folder: Path,
    study: StudySettings,
    worlds: Mapping[str, pl.DataFrame],
    outcomes: Sequence[Mapping[str, Any]],
    grid: Sequence[Mapping[str, Any]] = (),
    catalogues: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
) -> Path:
    """Writes ``study.md`` and the page ``study.html`` beside the study's parts; returns the page.

    Args:
        folder: Holds a folder per part, by world and seed, each a finished run.
        study: Worlds, seeds, claims and families of arms.
        worlds: The rows of every world with derived columns, seeds together.
        outcomes: The claims' outcomes, in their order.
        grid: The claims' outcomes in every world (`simulations.studies.judge.judge_everywhere`).
        catalogues: What every world offered to start from; that of the first one is shown.
    """
    parts = {world: _read_summaries(folder / world, study.seeds) for world in worlds}
    first = next(iter(parts.values()))[0]
    metric = get_metric(first)
    arms = {world: summarise_arms(rows, parts[world], metric) for world, rows in worlds.items()}
    write_study_text(folder, study, worlds, arms, outcomes, metric)
    values: dict[str, object] = {
        "title": f"Study {study.name}",
        "study": study,
        "run": first["run"],
        "priced_as": describe_pricing(first),
        "answer": _count_claims(outcomes),
        "claims": tabulate_claims(study.claims, outcomes, metric),
        "marginal_joules": describe_joules(first, _MARGINAL),
        "sweeps": [
            {"title": one.title, "figure": draw_sweep(one, worlds, study.families, metric)}
            for one in study.sweeps
        ],
        "catalogue": tabulate_catalogue(next(iter(catalogues.values()), ())),
        "worlds": [
            {"name": world}
            | _compare_arms(arms[world], parts[world], study, metric)
            | {"decided": _describe_decisions(split_arms(rows), metric)}
            for world, rows in worlds.items()
        ],
        "margin": MARGIN,
        "grid": tabulate_grid(grid),
        "label": LABEL[0].upper() + LABEL[1:],
        "not_covered": NOT_COVERED,
        "config": (folder / "config.yaml").read_text(encoding="utf-8"),
    }
    return write_page("study.html", folder / "study.html", values)


def _read_summaries(folder: Path, seeds: Sequence[int]) -> list[Summary]:
    files = [folder / f"seed_{seed}" / "summary.json" for seed in seeds]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _count_claims(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Returns the sentence that says which claims hold."""
    failing = [one["claim"] for one in outcomes if not one["holds"]]
    if not failing:
        return f"All {len(outcomes)} claims hold."
    held = len(outcomes) - len(failing)
    return f"{held} of {len(outcomes)} claims hold; not {', '.join(failing)}."


def _compare_arms(
    arms: Mapping[str, StudyArm], parts: Sequence[Summary], study: StudySettings, metric: str
) -> dict[str, object]:
    """Returns what the page shows of the arms of a world."""
    return {
        "data": parts[0]["run"]["data"],
        "seeds": len(parts),
        "arms": tabulate_arms(arms, metric),
        "pareto": draw_pareto(arms, study.families, metric),
        "both_joules": describe_joules(parts[0], f"{_MARGINAL} and device-total"),
    }


def _describe_decisions(arms: Arms, metric: str) -> dict[str, object]:
    """Returns what the page shows of the decisions in a world; nothing where none has a label."""
    if not has_decisions(arms):
        return {}
    ours = arms.get(OURS)
    scored = ours is not None and ours[decision_measures.LABEL].is_not_null().any()
    return {
        "retunes": tabulate_retunes(arms),
        "scores": tabulate_scores(arms, MARGIN),
        "chord": draw_chord(arms, metric),
        "score_charts": {OURS: draw_scores(arms[OURS], MARGIN)} if scored else {},
    }
