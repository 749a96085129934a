"""A study: one experiment under several seeds, and claims put to the test over all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from simulations.experiment import Experiment
from simulations.folds import compared, fold_devices, split_arms
from simulations.resume import end, is_finished
from simulations.run import run_experiment
from simulations.settings import Claim


def run_study(
    experiments: Sequence[Experiment], folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Runs an experiment once per seed and writes ``study.json`` with every claim's outcome."""
    frames: list[pl.DataFrame] = []
    for experiment in experiments:
        seed = experiment.run.seed
        console.print(f"study {experiment.study.name}, seed {seed}")
        part = folder / f"seed_{seed}"
        # a resumed study keeps the seeds that were done
        if experiment.run.resume is None or not is_finished(part):
            part.mkdir(parents=True, exist_ok=True)
            config = part / "config.yaml"
            config.write_text(
                (folder / "config.yaml").read_text() + f"# this part ran with seed {seed}\n"
            )
            run_experiment(experiment, part, console)
        rows = pl.read_parquet(part / "rows.parquet")
        # devices of different seeds are different people
        frames.append(rows.with_columns(pl.col("device") + 10_000_000 * len(frames)))
    first = experiments[0]
    outcomes = judge(pl.concat(frames), first.study.claims, first.metric)
    (folder / "study.json").write_text(json.dumps(outcomes, indent=1))
    end(folder)
    console.print(_table(first.study.name, outcomes))
    return outcomes


def judge(rows: pl.DataFrame, claims: Sequence[Claim], metric: str) -> list[dict[str, Any]]:
    """Returns every claim with its estimate, 95 % interval, threshold and whether it holds."""
    arms = {name: fold_devices(frame, metric) for name, frame in split_arms(rows).items()}
    outcomes: list[dict[str, Any]] = []
    for claim in claims:
        missing = [name for name in (claim.arm, claim.against) if name not in arms]
        if missing:
            raise ValueError(f"claim {claim.claim} is about arm {missing[0]!r}, which did not run")
        found = compared(arms[claim.arm], arms[claim.against], seed=0)[claim.measure]
        low, high = found["ci95"]
        holds = {
            "above": low is not None and low > claim.threshold,
            "below": high is not None and high < claim.threshold,
            "not_above": low is not None and low <= claim.threshold,
        }[claim.direction]
        outcomes.append(
            {
                "claim": claim.claim,
                "estimate": found["mean"],
                "ci95": [low, high],
                "threshold": claim.threshold,
                "holds": holds,
            }
        )
    return outcomes


def _table(name: str, outcomes: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"study {name}")
    for column in ("claim", "estimate", "95 % interval", "threshold", "holds"):
        table.add_column(column)
    for entry in outcomes:
        low, high = entry["ci95"]
        shown = "unknown" if low is None else f"{low:.4f} to {high:.4f}"
        estimate = "unknown" if entry["estimate"] is None else f"{entry['estimate']:.4f}"
        verdict = "yes" if entry["holds"] else "NO"
        table.add_row(entry["claim"], estimate, shown, str(entry["threshold"]), verdict)
    return table
