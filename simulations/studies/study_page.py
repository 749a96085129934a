"""The page of a study: claims with their verdicts, and for every world its arms side by side.

One self-contained file, like a run's report: Plotly stands in it once, it loads nothing, holds no
time stamp, and equal folders give equal bytes.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

import polars as pl
from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs] - it has none

from simulations.experiment.study_settings import StudySettings
from simulations.report.html import Chart, chart, details, plain, scrolled
from simulations.report.page_frame import STYLE
from simulations.report.tables import joules_caption, priced_as, quality_metric
from simulations.results.device_means import HEADLINES
from simulations.results.summary import LABEL, NOT_COVERED
from simulations.studies.catalogue_map import map_section
from simulations.studies.reuse_section import decisions_section, grid_section
from simulations.studies.study_figures import pareto
from simulations.studies.study_tables import (
    ArmFold,
    Summary,
    arm_cells,
    arms_caption,
    claim_cells,
    fold_world,
)
from simulations.studies.sweeps import sweep_figure

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
<script>$plotly</script>
</head>
<body>
<h1>$title</h1>
<p class="facts">$facts</p>
<p class="answer">$answer</p>
<div class="scroll prose">$claims</div>
<p class="note">$claims_note</p>
$worlds
<h2>Provenance</h2>
$provenance
</body>
</html>
""")
_CLAIMS_NOTE = (
    "Arms are compared device by device; intervals are bootstrapped over the devices of all seeds, "
    "at central coefficients. A claim holds where its whole interval does. energy_j_tuning is the "
    "energy of probing and tuning, patch_bytes what is sent of a patch, both as priced. "
)
MARGIN = 0.05
"""Nats per token that a retune has to gain to count as help, on the page."""
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
    """Path of the page ``study.html``, written beside the study's parts.

    Args:
        folder: Holds a folder per part, by world and seed, each a finished run.
        study: Worlds, seeds, claims and families of arms.
        worlds: The rows of every world with derived columns, seeds together.
        outcomes: The claims' outcomes, in their order.
        grid: What `simulations.studies.worlds_grid` found over worlds.
        catalogues: What every world offered to start from; that of the first one is drawn.
    """
    parts = {world: _summaries(folder / world, study.seeds) for world in worlds}
    first = next(iter(parts.values()))[0]
    metric = quality_metric(first)
    sections = [
        _world(world, fold_world(rows, parts[world], metric), parts[world], study, metric)
        + decisions_section(world, rows, metric, study.mild, MARGIN)
        for world, rows in worlds.items()
    ]
    sections.append(grid_section(grid))
    page = PAGE.substitute(
        title=html.escape(f"Study {study.name}"),
        style=STYLE,
        plotly=get_plotlyjs(),
        facts=html.escape(_facts(first, study, list(worlds))),
        answer=html.escape(_answer(outcomes)),
        claims=plain(*claim_cells(study.claims, outcomes, metric)),
        claims_note=html.escape(
            " ".join([study.note, _CLAIMS_NOTE + joules_caption(first, _MARGINAL)]).strip()
        ),
        worlds="\n".join(
            [
                *_sweeps(study, worlds, metric),
                map_section(next(iter(catalogues.values()), ())),
                *sections,
            ]
        ),
        provenance=_provenance(folder),
    )
    path = folder / "study.html"
    path.write_text(page, encoding="utf-8")
    return path


def _summaries(folder: Path, seeds: Sequence[int]) -> list[Summary]:
    files = [folder / f"seed_{seed}" / "summary.json" for seed in seeds]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _facts(summary: Summary, study: StudySettings, worlds: Sequence[str]) -> str:
    run = summary["run"]
    named = [world for world in worlds if world]
    told = f"worlds {', '.join(named)}; " if named else ""
    seeds = ", ".join(map(str, study.seeds))
    return (
        f"{told}seeds {seeds}, {run['devices']:,} devices and {run['rounds']:,} rounds each; "
        f"backbone {run['backbone']}, {priced_as(summary)}, engine {run['engine']}. All joules "
        "and seconds of devices are simulated."
    )


def _answer(outcomes: Sequence[Mapping[str, Any]]) -> str:
    held = sum(1 for one in outcomes if one["holds"])
    if held == len(outcomes):
        return f"All {held} claims hold."
    open_ones = [one["claim"] for one in outcomes if not one["holds"]]
    return f"{held} of {len(outcomes)} claims hold; not {', '.join(open_ones)}."


def _world(
    world: str,
    folds: Mapping[str, ArmFold],
    parts: Sequence[Summary],
    study: StudySettings,
    metric: str,
) -> str:
    run, seeds = parts[0]["run"], len(parts)
    shown = Chart(
        key=f"pareto-{list(study.world_names).index(world)}",
        title="What tuning costs and what it buys",
        caption="Up and to the left is better. Vertical bars are 95 % intervals over devices, "
        "horizontal bars the range of the coefficients, an error that the arms share. Dotted lines "
        "join arms of one family. Joules of probes and tunes stand above the idle draw. "
        f"{joules_caption(parts[0], _MARGINAL)}",
        figure=pareto(folds, study.families, metric),
    )
    title = f"World {world}" if world else "Arms"
    return "\n".join(
        [
            f"<h2>{html.escape(title)}</h2>",
            f'<p class="facts">{html.escape("data " + str(run["data"]))}</p>',
            scrolled(plain(*arm_cells(folds, metric))),
            f'<p class="note">{html.escape(arms_caption(parts[0], seeds))}</p>',
            chart(shown),
        ]
    )


def _sweeps(study: StudySettings, worlds: Mapping[str, pl.DataFrame], metric: str) -> list[str]:
    """Returns the charts over worlds that the study asks for."""
    if not study.sweeps:
        return []
    caption = (
        "Means per device with 95 % intervals over devices of all seeds; where a curve is about "
        "the quality of another arm, a straight line between rungs and no interval. Joules are "
        "simulated."
    )
    charts = [
        Chart(
            key=f"sweep-{place}",
            title=sweep.title,
            caption=caption,
            figure=sweep_figure(sweep, worlds, study.families, HEADLINES[metric]),
        )
        for place, sweep in enumerate(study.sweeps)
    ]
    return ["<h2>Across worlds</h2>", *map(chart, charts)]


def _provenance(folder: Path) -> str:
    config = html.escape((folder / "config.yaml").read_text(encoding="utf-8"))
    label = LABEL[0].upper() + LABEL[1:]
    return "\n".join(
        [
            f"<p>{html.escape(label)}; {html.escape(NOT_COVERED)}.</p>",
            "<p>Each part is a run of its own, with its report beside its rows.</p>",
            details("Configuration", f"<pre>{config}</pre>"),
        ]
    )
