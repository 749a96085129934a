"""Guidance in a run: the score that devices use is the one that the server fitted before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from fleettune.releases.guidance import FEATURES, Guidance, features_of
from simulations.launch import launch

DRIVER = Path(__file__).parent / "killed_driver.py"
RELEASE = (
    "{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, window: 16, "
    "conversations: 50}"
)
ARM = "edgetune,canary=true"
GUIDED = [
    "fleet.devices=3",
    "rounds=3",
    "release.every=1",
    f"release.plans=[{RELEASE}]",
    *("data=synthetic_v1", "model=pocket_v1", "tuning.steps=2"),
    "data.exchanges_per_day=4",
    "data.history_days=4",
    "engine.workers=1",
    "adaptation=edgetune",
    "adaptation.canary=true",
    "guidance=fitted",
    "guidance.explore=0.9",
    "guidance.min_explored=2",
]
DIES = 2 * (1 + 2 * 3 + 1) + 4
"""Before this write, in the last round: a cohort's states, a row per device and arm, a commit."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads, arguments = torch.get_num_threads(), sys.argv
    yield tmp_path_factory.mktemp("guided")
    torch.set_num_threads(threads)
    sys.argv = arguments


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    folder = place / "whole"
    assert launch([*GUIDED, f"store={place / 'store'}", f"hydra.run.dir={folder}"]) == 0
    return folder


def test_devices_score_with_the_coefficients_fitted_from_earlier_releases(whole: Path) -> None:
    table = pl.read_parquet(whole / "guidance.parquet").filter(pl.col("arm") == ARM)
    assert table["release"].to_list() == [1, 2]
    assert table["fitted"].to_list() == [False, True]
    rows = pl.read_parquet(whole / "rows.parquet").filter(pl.col("arm") == ARM)
    scored = 0
    for told in table.filter("fitted").to_dicts():
        guidance = Guidance(
            intercept=told["intercept"],
            weights=tuple((name, told[name]) for name in FEATURES),
            threshold=told["threshold"],
        )
        for row in rows.filter(pl.col("release") == told["release"]).to_dicts():
            seen = features_of(
                row["drift"], row["strength"], row["canary_worse"], row["canary_before"]
            )
            assert row["score"] == guidance.probability(seen)
            assert (
                row["propensity"] == (1.0 if row["explored"] == 0 else 0.9) or row["score"] <= 0.5
            )
            scored += 1
    assert scored == 3
    # the reference has no canaries, so no gain is known of it
    reference = pl.read_parquet(whole / "guidance.parquet").filter(pl.col("arm") != ARM)
    assert not reference["fitted"].any()


def test_the_table_of_decisions_counts_what_the_rows_say(whole: Path) -> None:
    rows = pl.read_parquet(whole / "rows.parquet")
    table = pl.read_parquet(whole / "decisions.parquet").filter(pl.col("device_class") == "all")
    for told in table.to_dicts():
        here = rows.filter((pl.col("arm") == told["arm"]) & (pl.col("release") == told["release"]))
        counts = {name: (here["decision"] == name).sum() for name in ("retune", "reuse")}
        assert (told["retuned"], told["reused"]) == (counts["retune"], counts["reuse"])
        tuning = here.filter(pl.col("decision") == "retune")
        joules = (tuning["energy_j_tune"] + tuning["energy_j_probe"]).sum()
        # rounded to a microjoule per device
        assert told["retune_j"] == pytest.approx(joules, abs=1e-5)


@pytest.mark.slow
def test_a_killed_guided_run_ends_with_the_same_bytes(whole: Path, place: Path) -> None:
    folder = place / "killed"
    given = [f"hydra.run.dir={folder}"]
    subprocess.run(
        [
            sys.executable,
            str(DRIVER),
            json.dumps([(DIES, given)]),
            *GUIDED,
            f"store={place / 'store'}",
        ],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(DRIVER.parents[2])},
        check=True,
        timeout=100,
    )
    assert not (folder / "guidance.parquet").exists()
    assert launch([f"resume={folder}"]) == 0
    for name in ("rows", "decisions", "guidance", "rounds", "releases"):
        made = (folder / f"{name}.parquet").read_bytes()
        assert made == (whole / f"{name}.parquet").read_bytes(), name
