"""Writes what a study found as Markdown: ``study.md``, beside its page and for docs/results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fleettune.whole_files import write_whole
from simulations.experiment.headlines import HEADLINES
from simulations.experiment.study_settings import StudySettings
from simulations.report.formats import (
    format_change,
    format_interval,
    format_kilojoules,
    format_share_interval,
)
from simulations.report.page import Row
from simulations.report.text_tables import format_markdown
from simulations.results.device_means import compare_arms, reduce_by_device, split_arms
from simulations.studies.study_tables import StudyArm, tabulate_claims


def write_study_text(
    folder: Path,
    study: StudySettings,
    worlds: Mapping[str, pl.DataFrame],
    arms: Mapping[str, Mapping[str, StudyArm]],
    outcomes: Sequence[Mapping[str, Any]],
    metric: str,
) -> Path:
    """Writes ``study.md`` beside the study's parts and returns its path.

    Args:
        folder: The study's folder.
        study: Its worlds, seeds and claims.
        worlds: The rows of every world with derived columns, seeds together.
        arms: What the arms of every world came to (`simulations.studies.study_tables`).
        outcomes: The claims' outcomes, in their order.
        metric: The headline metric.
    """
    seeds = ", ".join(map(str, study.seeds))
    held = sum(bool(one["holds"]) for one in outcomes)
    lines = [
        f"# Study {study.name}",
        "",
        f"    fleettune run study={study.name}",
        "",
        f"Seeds {seeds}. {held} of {len(outcomes)} claims hold. Energy is simulated. Intervals "
        "hold 95 % of resampled seeds, and devices within them.",
    ]
    for world, rows in worlds.items():
        devices = rows["device"].n_unique()
        lines += ["", f"## World {world}, {devices} devices", ""]
        lines += format_markdown(_compare(rows, arms[world], metric))
    claims = [
        {name: cell for name, cell in row.items() if name != "what is compared"}
        for row in tabulate_claims(study.claims, outcomes, metric)
    ]
    lines += ["", "## Claims", "", *format_markdown(claims), ""]
    path = folder / "study.md"
    write_whole(path, "\n".join(lines).encode())
    return path


def _compare(rows: pl.DataFrame, arms: Mapping[str, StudyArm], metric: str) -> list[Row]:
    """Returns five columns per arm, the reference first."""
    head, by_arm = HEADLINES[metric], split_arms(rows)
    reference = next(iter(arms))
    there = reduce_by_device(by_arm[reference], metric)
    found: list[Row] = []
    for name, arm in arms.items():
        versus = compare_arms(reduce_by_device(by_arm[name], metric), there, seed=0)
        is_share = head.is_share
        quality = format_share_interval(arm.quality) if is_share else format_interval(arm.quality)
        change = format_change(versus["quality_difference"], is_share=is_share)
        saving = format_share_interval(versus["energy_saving"])
        first = name == reference
        found.append(
            {
                "arm": f"`{name}`, the reference" if first else f"`{name}`",
                f"{head.words} [95 %]": quality,
                "points [95 %]" if is_share else "change [95 %]": "" if first else change,
                "simulated kJ (low to high)": format_kilojoules(*arm.total_j),
                "energy saved [95 %]": "" if first else saving,
            }
        )
    return found
