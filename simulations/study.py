"""A study: one experiment in several worlds and seeds, and claims put to the test over them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from simulations.checkpoint.resume import delete_checkpoint, is_finished
from simulations.experiment.build import Experiment
from simulations.results.derived_columns import add_decision_columns, add_derived_columns
from simulations.run import run_experiment
from simulations.studies.judge import judge_claims, judge_everywhere
from simulations.studies.study_page import write_study_page
from strategies.app import CATALOGUE_FILE


def run_study(
    experiments: Sequence[Experiment], folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Runs every part of a study and writes ``study.json`` with every claim's outcome.

    Args:
        experiments: One per world and seed, seeds together.
        folder: Where a folder per part is made, by world and seed.
        console: Where progress and tables are shown.
    """
    worlds: dict[str, list[pl.DataFrame]] = {}
    catalogues: dict[str, list[dict[str, Any]]] = {}
    for experiment in experiments:
        seed, world = experiment.run.seed, experiment.study.world
        told = f", world {world}" if world else ""
        console.print(f"study {experiment.study.name}{told}, seed {seed}")
        part = folder / world / f"seed_{seed}"
        # a resumed study keeps the parts that were done
        if experiment.run.resume is None or not is_finished(part):
            part.mkdir(parents=True, exist_ok=True)
            config = part / "config.yaml"
            config.write_text(
                (folder / "config.yaml").read_text() + f"# this part ran with seed {seed}{told}\n"
            )
            run_experiment(experiment, part, console)
        # a catalogue of another seed has other words, so the first one speaks for its world
        catalogues.setdefault(world, _catalogue(part))
        frames = worlds.setdefault(world, [])
        rows = add_derived_columns(pl.read_parquet(part / "rows.parquet"))
        releases = pl.read_parquet(part / "releases.parquet")
        rows = add_decision_columns(rows, releases, experiment.guidance)
        # devices of different seeds are different people, and get releases of their own
        people = pl.col("device") + 10_000_000 * len(frames)
        frames.append(rows.with_columns(people, pl.lit(seed).alias("part")))
    first = experiments[0]
    rows = {world: pl.concat(frames) for world, frames in worlds.items()}
    outcomes = judge_claims(rows, first.study.claims, first.metric, catalogues)
    (folder / "study.json").write_text(json.dumps(outcomes, indent=1))
    delete_checkpoint(folder)
    grid = judge_everywhere(rows, first.study.claims, first.metric) if first.study.grid else []
    if grid:
        (folder / "study_worlds.json").write_text(json.dumps(grid, indent=1))
    page = write_study_page(folder, first.study, rows, outcomes, grid, catalogues)
    console.print(_table(first.study.name, outcomes))
    console.print(f"Study page: {page.resolve()}", soft_wrap=True)
    return outcomes


def _catalogue(part: Path) -> list[dict[str, Any]]:
    file = part / CATALOGUE_FILE
    return json.loads(file.read_text()) if file.is_file() else []


def _table(name: str, outcomes: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"study {name}")
    for column in ("claim", "estimate", "95 % interval", "threshold", "holds"):
        table.add_column(column)
    for entry in outcomes:
        low, high = entry["ci95"]
        shown = "unknown" if low is None else f"{low:.4f} to {high:.4f}"
        estimate = "unknown" if entry["estimate"] is None else f"{entry['estimate']:.4f}"
        verdict = "yes" if entry["holds"] else "NO"
        table.add_row(
            entry["claim"], estimate, shown, f"{entry['direction']} {entry['threshold']}", verdict
        )
    return table
