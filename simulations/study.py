"""Runs an experiment in several worlds and seeds, and puts claims to the test over them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from fleettune.whole_files import write_whole
from simulations.checkpoint.resume import delete_checkpoint, finish_interrupted, is_finished
from simulations.experiment.build import Experiment
from simulations.report.run_page import write_report
from simulations.report.terminal_tables import make_table
from simulations.results.derived_columns import add_decision_columns, add_derived_columns
from simulations.results.device_means import APART
from simulations.run import run_experiment
from simulations.studies.judge import judge_claims, judge_everywhere
from simulations.studies.study_page import write_study_page
from simulations.studies.study_tables import tabulate_claims
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
        world = experiment.study.world
        part = _run_part(experiment, folder, console)
        frames = worlds.setdefault(world, [])
        # devices of different seeds are different people, and get releases of their own
        people = pl.col("device") + APART * len(frames)
        seed = pl.lit(experiment.run.seed).alias("part")
        frames.append(_read_rows(experiment, part).with_columns(people, seed))
        # a catalogue of another seed has other words, so the first one speaks for its world
        file = part / CATALOGUE_FILE
        catalogues.setdefault(world, json.loads(file.read_text()) if file.is_file() else [])
    study, metric = experiments[0].study, experiments[0].metric
    rows = {world: pool_parts(frames) for world, frames in worlds.items()}
    outcomes = judge_claims(rows, study.claims, metric, catalogues)
    grid = judge_everywhere(rows, study.claims, metric) if study.grid else []
    if grid:
        (folder / "study_worlds.json").write_text(json.dumps(grid, indent=1))
    page = write_study_page(folder, study, rows, outcomes, grid, catalogues)
    # last: with it the study is finished, and nothing of it is to be done any more
    write_whole(folder / "study.json", json.dumps(outcomes, indent=1).encode())
    delete_checkpoint(folder)
    claims = tabulate_claims(study.claims, outcomes, metric)
    console.print(
        make_table(claims, "intervals over seeds and devices", title=f"study {study.name}")
    )
    console.print(f"Study page: {page.resolve()}", soft_wrap=True)
    return outcomes


def pool_parts(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Returns the rows of all parts of a world; null where a part lacks a column.

    A part whose devices found no catalogue to start from has no columns about starts.
    """
    return pl.concat(frames, how="diagonal")


def _run_part(experiment: Experiment, folder: Path, console: Console) -> Path:
    """Runs a study in one world with one seed and returns the folder of that run."""
    seed, world = experiment.run.seed, experiment.study.world
    where = f", world {world}" if world else ""
    console.print(f"study {experiment.study.name}{where}, seed {seed}")
    part = folder / world / f"seed_{seed}"
    resumes = experiment.run.resume is not None
    # a resumed study keeps the parts that were done, and ends what was cut off behind their results
    if resumes and (finish_interrupted(part) or is_finished(part)):
        if not (part / "report.html").exists():
            write_report(part)
    else:
        part.mkdir(parents=True, exist_ok=True)
        settings = (folder / "config.yaml").read_text()
        (part / "config.yaml").write_text(f"{settings}# this part ran with seed {seed}{where}\n")
        run_experiment(experiment, part, console)
    return part


def _read_rows(experiment: Experiment, part: Path) -> pl.DataFrame:
    """Returns the rows of a finished part with the columns that claims may be about."""
    rows = add_derived_columns(pl.read_parquet(part / "rows.parquet"))
    releases = pl.read_parquet(part / "releases.parquet")
    return add_decision_columns(rows, releases, experiment.guidance)
