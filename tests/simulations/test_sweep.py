"""A sweep: one run per combination, each beside the reference, read back as one table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.report.compare import compare_runs

ROOT = Path(__file__).parents[2]
TINY = ["fleet.devices=2", "rounds=1", "tuning.steps=2", "engine.workers=1"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    command = [sys.executable, "-m", "simulations", "-m", *TINY]
    command += ["seed=1,2", "adaptation=always_reuse,never_personalise"]
    command += [f"hydra.sweep.dir={folder}/runs", f"store={folder}/store"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "150"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs"


def test_every_combination_is_a_run_of_its_own_beside_the_reference(sweep: Path) -> None:
    found: dict[str, tuple[int, list[str]]] = {}
    for file in sorted(sweep.glob("*/summary.json")):
        summary = json.loads(file.read_text())
        found[file.parent.name] = (summary["run"]["seed"], sorted(summary["arms"]))
    assert found == {
        "0": (1, ["always_retune", "always_reuse"]),
        "1": (1, ["always_retune", "never_personalise"]),
        "2": (2, ["always_retune", "always_reuse"]),
        "3": (2, ["always_retune", "never_personalise"]),
    }


def test_every_run_describes_itself(sweep: Path) -> None:
    wanted = {"config.yaml", "versions.json", "rows.parquet", "rounds.parquet", "releases.parquet"}
    wanted |= {"summary.json", "report.html", "run.log"}
    for run in sweep.iterdir():
        if run.is_dir():
            assert wanted <= {file.name for file in run.iterdir()}


def test_a_sweep_is_compared_by_what_differs(sweep: Path) -> None:
    rows = compare_runs([sweep])
    assert [(row.run, row.arm) for row in rows] == [
        ("0", "always_retune"),
        ("0", "always_reuse"),
        ("1", "always_retune"),
        ("1", "never_personalise"),
        ("2", "always_retune"),
        ("2", "always_reuse"),
        ("3", "always_retune"),
        ("3", "never_personalise"),
    ]
    seeds = [dict(row.overrides)["seed"] for row in rows]
    assert seeds == ["1"] * 4 + ["2"] * 4
    assert {row.reference for row in rows} == {"always_retune"}
    # Runs of one seed share their fleet and reference: the same joules.
    assert rows[0].energy_j == rows[2].energy_j
    assert rows[0].energy_j != rows[4].energy_j
    never = [row for row in rows if row.arm == "never_personalise"]
    assert all(row.saving["mean"] > 0 for row in never)
