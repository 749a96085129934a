"""A sweep: one run per combination, each beside the reference, read back as one table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.comparison.found_runs import read_runs
from simulations.comparison.front import compare_settings

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
    (folder / "stderr.txt").write_text(done.stderr)
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


def test_no_warning_of_another_package_reaches_the_screen(sweep: Path) -> None:
    assert (sweep.parent / "stderr.txt").read_text() == ""


def test_the_log_of_a_run_is_of_sentences_and_not_of_training_steps(sweep: Path) -> None:
    for run in range(4):
        lines = (sweep / f"{run}" / "run.log").read_text().splitlines()
        assert any("INFO night 1 of 1: 2 of 2 device-nights" in line for line in lines)
        assert not any("DEBUG" in line for line in lines)


def test_a_sweep_is_compared_by_what_was_typed_its_seeds_folded(sweep: Path) -> None:
    lines = {line.name: line for line in compare_settings(read_runs([sweep])).lines}
    names = ["always_retune", "adaptation=always_reuse", "adaptation=never_personalise"]
    assert list(lines) == names
    for line in lines.values():
        assert list(line.runs) == [1, 2]
        assert line.reference == "always_retune"
    # runs of one seed share fleet and reference, those of two do not
    first, second = lines["always_retune"].energy_by_seed.values()
    assert first != second
    assert lines["adaptation=never_personalise"].saving["mean"] > 0
