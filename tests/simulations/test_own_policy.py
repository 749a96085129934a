"""The example of docs/how-to: policies outside the repository's packages, in runs of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "docs" / "example_policy"
RELEASE = (
    "{name: tiny, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 4, window: 32,"
    " conversations: 50}"
)


BUSY = ("rounds=1", "data.exchanges_per_day=8", "data.spread=0")
"""Users who write more on the first night than 700 bytes hold."""


def simulate(folder: Path, *more: str, python_path: str = str(EXAMPLE)) -> tuple[int, str]:
    """Runs a tiny fleet with the example's policy; returns the exit code and the errors."""
    command = [
        *(sys.executable, "-m", "simulations"),
        f"hydra.searchpath=[file://{EXAMPLE}/conf]",
        *("adaptation=thrifty", "fleet.devices=2", "rounds=2", "release.every=1"),
        *("tuning.steps=2", f"release.plans=[{RELEASE}]", f"store={folder / 'store'}"),
        *(f"hydra.run.dir={folder / 'run'}", *more),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, " ".join(done.stderr.split())


def test_a_policy_of_ones_own_runs_beside_the_reference(tmp_path: Path) -> None:
    code, errors = simulate(tmp_path)
    assert code == 0, errors
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["arms"]) == ["always_retune", "thrifty"]
    # the first patch is one release old on the second night, younger than min_age
    rows = pl.read_parquet(tmp_path / "run" / "rows.parquet").filter(pl.col("arm") == "thrifty")
    reasons = rows.sort("round", "device")["reason"].to_list()
    assert reasons == ["first_patch", "first_patch", "patch_is_young", "patch_is_young"]
    thrifty, reference = (summary["arms"][arm]["energy_j"] for arm in ("thrifty", "always_retune"))
    assert 0 < thrifty["total"] < reference["total"]


@pytest.mark.slow
def test_a_selection_rule_of_ones_own_keeps_what_it_says(tmp_path: Path) -> None:
    code, errors = simulate(tmp_path, "selection=shortest", "storage.buffer_bytes=700", *BUSY)
    assert code == 0, errors
    rows = pl.read_parquet(tmp_path / "run" / "rows.parquet").sort("device")
    reference = rows.filter(pl.col("arm") == "always_retune")["buffer_exchanges"].to_list()
    own = rows.filter(pl.col("arm") != "always_retune")["buffer_exchanges"].to_list()
    # the reference keeps the newest; of the shortest more fit, where not all do
    assert all(mine >= theirs for mine, theirs in zip(own, reference, strict=True))
    assert sum(own) > sum(reference)
    assert max(rows["buffer_bytes"].to_list()) <= 700


def test_a_policy_that_python_cannot_find_is_bad_input(tmp_path: Path) -> None:
    code, errors = simulate(tmp_path, python_path="")
    assert code == 2
    assert "adaptation._target_ must name an importable class, got 'thrifty.Thrifty'" in errors
    assert "PYTHONPATH" in errors


def test_a_field_out_of_range_is_bad_input(tmp_path: Path) -> None:
    code, errors = simulate(tmp_path, "adaptation.min_age=0")
    assert code == 2
    assert "min_age must be >= 1 release, got 0" in errors
