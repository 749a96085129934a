"""Catalogues without text in whole runs: clusters of what devices shared, adapters of others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from simulations.adapter_formats.peft import import_peft, read_patch
from simulations.cli import main
from simulations.launch import launch
from tests.simulations.checkpoint.test_resume import DRIVER, assert_same_bytes

pytestmark = pytest.mark.slow

STYLES = (
    "+data.styles=[{expertise: 0, informativeness: 0, tone: 0},"
    "{expertise: 0, informativeness: 3, tone: 3}]"
)
TINY = [
    *("data=styles", "model=pocket_v1", "placement@reference.placement=top_layers"),
    *("data.similarity=1.0", "data.own_facts=false", STYLES),
    *("data.world.exchanges_per_day=4", "data.world.history_days=3"),
    *("release.every=99", "release.initial=null", "tuning.steps=8"),
    *("tuning.learning_rate=4.0e-3", "engine.workers=1", "engine.threads=1"),
]
WARM = ["start=nearest", "start.single_within=2.0"]
CLUSTERS = [
    *(*TINY, *WARM, "rounds=2", "fleet.devices=6", "fleet.join=[{round: 1, share: 0.34}]"),
    *("catalogue=clusters", "catalogue.clusters=2", "catalogue.members=2", "catalogue.least=4"),
    *("catalogue.explain.questions=8", "catalogue.explain.new_tokens=12"),
]
ARM = "nearest,single_within=2.0"
MOMENTS = (7, 16)
"""Writes before which the driver dies, one in either round: 10 of the first, 14 of the other."""

Launcher = Callable[..., Path]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """A function that launches a command line into a folder of its own, which it returns."""
    threads, arguments = torch.get_num_threads(), sys.argv
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cwd"))

        def run(*overrides: str) -> Path:
            folder = tmp_path_factory.mktemp("run") / "run"
            store = f"store={folder.parent / 'store'}"
            assert launch([store, *overrides, f"hydra.run.dir={folder}"]) == 0
            return folder

        yield run
    torch.set_num_threads(threads)
    sys.argv = arguments


@pytest.fixture(scope="module")
def whole(start: Launcher) -> Path:
    return start(*CLUSTERS)


def entries_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "server_catalogue.json").read_text())


def test_a_device_that_joins_later_starts_from_a_cluster_of_those_before_it(whole: Path) -> None:
    rows = pl.read_parquet(whole / "rows.parquet").filter(pl.col("arm") == ARM)
    first = rows.filter(pl.col("round") == 0)
    assert first["device"].to_list() == [0, 1, 2, 3]
    # before there are deltas there is nothing to choose from
    assert first["start_entries"].to_list() == [None] * 4
    joined = rows.filter((pl.col("round") == 1) & (pl.col("device") >= 4))
    assert joined["start_entries"].to_list() == [1, 1]
    # clusters have no names of styles, so none is right
    assert joined["start_right"].to_list() == [None, None]
    scratch = pl.read_parquet(whole / "rows.parquet").filter(
        (pl.col("arm") == "always_retune") & (pl.col("round") == 1) & (pl.col("device") >= 4)
    )
    assert (joined["start_nll"].to_numpy() < scratch["start_nll"].to_numpy()).all()
    entries = entries_of(whole)
    assert [(entry["origin"], entry["release"]) for entry in entries] == [("cluster", 0)] * 2
    assert max(entry["manifest_bytes"] for entry in entries) < 40_000
    assert "cluster0" in (whole / "report.html").read_text()


def test_a_run_killed_in_any_round_ends_with_the_same_bytes_on_two_workers_too(
    whole: Path, start: Launcher, tmp_path: Path
) -> None:
    folders = [tmp_path / str(moment) for moment in MOMENTS]
    own = [
        (moment, [f"hydra.run.dir={folder}", f"store={tmp_path / f'store{moment}'}"])
        for moment, folder in zip(MOMENTS, folders, strict=True)
    ]
    own[1][1].append("engine.workers=2")
    subprocess.run(
        [sys.executable, str(DRIVER), json.dumps(own), *CLUSTERS],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(DRIVER.parents[2])},
        check=True,
        timeout=200,
    )
    for folder in folders:
        assert launch([f"resume={folder}"]) == 0
        assert_same_bytes(folder, whole)
        assert entries_of(folder) == entries_of(whole)


def test_an_adapter_that_was_exported_is_what_a_device_starts_from(
    start: Launcher, tmp_path: Path
) -> None:
    tuned = start(*TINY, "rounds=1", "fleet.devices=2", "adaptation=never_personalise")
    adapters: list[str] = []
    for device in range(2):
        into = tmp_path / f"adapter{device}"
        given = ["export", str(tuned), "--device", str(device), "--arm", "always_retune"]
        assert main([*given, "--into", str(into)]) == 0
        adapters.append(f"{{name: own{device}, path: {into}}}")
    folder = start(
        *(*TINY, *WARM, "rounds=1", "fleet.devices=2", "catalogue=imported"),
        f"catalogue.adapters=[{','.join(adapters)}]",
        *("catalogue.explain.questions=8", "catalogue.explain.new_tokens=12"),
        "tuning.learning_rate=1.0e-9",
    )
    assert [entry["origin"] for entry in entries_of(folder)] == ["imported"] * 2
    for device in range(2):
        held = read_patch(folder, device, ARM).patch
        own = import_peft(tmp_path / f"adapter{device}", 0).patch
        assert held.ranks == own.ranks
        for site in own.factors:
            # the tune's own rate, and single precision in other factors of the same product
            np.testing.assert_allclose(held.dense(site), own.dense(site), atol=1e-6)
