"""Resuming: a killed run ends with the same bytes, and nothing but the same run is resumed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from simulations.checkpoint.resume import STATE_FILE, restore_overrides
from simulations.checkpoint.store import Store
from simulations.launch import check_all, launch
from tests.simulations.flipped_bits import flip_bits

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).parents[1] / "killed_driver.py"
RELEASE = (
    "{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, window: 16, "
    "conversations: 50}"
)
TINY = [
    "fleet.devices=3",
    "rounds=4",
    "release.every=2",
    f"release.plans=[{RELEASE}]",
    "tuning.steps=2",
    "data.exchanges_per_day=2",
    "data.history_days=2",
    "engine.workers=1",
    "engine.cohort_size=2",
]
ARMS = 5
"""The standard ones that answer free text."""
WRITES = 4 * (2 + 3 * ARMS + 1)
"""Of the whole run: per round two cohorts' states, a row per device and arm, one commit."""

EDGES = np.linspace(1, WRITES + 1, 6).astype(int)
MOMENTS = [int(moment) for moment in np.random.default_rng(7).integers(EDGES[:-1], EDGES[1:])]
"""Numbers of the write before which the driver dies: one drawn from every fifth of the run."""

STUDY = ["study.seeds=[0,1]", "fleet.devices=2", "rounds=2"]
STUDY_MOMENT = 3 * (1 + 2 * ARMS + 1) + 4
"""In the second round of the second seed."""

Launcher = Callable[..., int]


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """Folders of what was killed: runs by the moment, a run of two workers, a study."""

    runs: dict[int, Path]
    two_workers: Path
    study: Path


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """A function that launches a command line in this process and returns its exit code."""
    threads, arguments = torch.get_num_threads(), sys.argv
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        yield lambda *overrides: launch(list(overrides))
    torch.set_num_threads(threads)
    sys.argv = arguments


@pytest.fixture(scope="module")
def whole(start: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts; its releases are in `store` beside it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start(*TINY, f"store={folder.parent / 'store'}", f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def deaths(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Deaths:
    """The same run, killed at several moments and with two workers; and a study, killed too."""
    killed = Deaths(
        runs={moment: tmp_path_factory.mktemp("killed") / "run" for moment in MOMENTS},
        two_workers=tmp_path_factory.mktemp("killed") / "run",
        study=tmp_path_factory.mktemp("killed") / "study",
    )
    listed: list[tuple[int, list[str]]] = [
        *((moment, [f"hydra.run.dir={folder}"]) for moment, folder in killed.runs.items()),
        (MOMENTS[2], ["engine.workers=2", f"hydra.run.dir={killed.two_workers}"]),
        (STUDY_MOMENT, [*STUDY, f"hydra.run.dir={killed.study}"]),
    ]
    subprocess.run(
        [sys.executable, str(DRIVER), json.dumps(listed), *TINY, f"store={whole.parent / 'store'}"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(DRIVER.parents[2])},
        check=True,
        timeout=600,
    )
    return killed


def rounds_of(folder: Path) -> list[int]:
    with sqlite3.connect(folder / STATE_FILE) as db:
        found = [number for (number,) in db.execute("SELECT round FROM server_state ORDER BY 1")]
    db.close()
    return found


def test_bits_that_flip_in_the_checkpoint_of_a_killed_run_change_nothing_in_silence(
    deaths: Deaths, tmp_path: Path
) -> None:
    # runs first, while that one is not resumed yet
    shutil.copytree(deaths.two_workers / "checkpoint", tmp_path / "checkpoint")
    whole = tmp_path / STATE_FILE
    with Store(whole) as store:  # which folds it into one file when it is closed
        holders = sorted({(row["arm"], row["device"]) for row in store.rows()})
    assert holders, "the run must have been killed behind its first round"
    outcomes = flip_bits(whole, holders, 10**9, range(300), tmp_path)
    assert list(outcomes.values()).count(None) > 100


@pytest.mark.parametrize("place", range(5))
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(
    place: int, whole: Path, deaths: Deaths, start: Launcher
) -> None:
    moment, folder = list(deaths.runs.items())[place]
    committed = (moment - 1) // (WRITES // 4)  # rounds whose commit came before
    assert rounds_of(folder) == list(range(committed))[-2:]
    log = (folder / "run.log").read_bytes()
    assert start(f"resume={folder}") == 0
    assert_same_bytes(folder, whole)
    assert (folder / "run.log").read_bytes().startswith(log)


def test_a_killed_run_of_two_workers_ends_with_the_bytes_of_one(
    whole: Path, deaths: Deaths, start: Launcher
) -> None:
    folder = deaths.two_workers
    assert rounds_of(folder), "the run must have been killed behind its first round"
    assert start(f"resume={folder}") == 0
    assert_same_bytes(folder, whole)
    assert "workers: 2" in (folder / "config.yaml").read_text()


def assert_same_bytes(folder: Path, whole: Path) -> None:
    names = {file.name for file in whole.iterdir()}
    assert {file.name for file in folder.iterdir()} == names
    for name in names:
        if name.endswith((".parquet", ".safetensors")):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_resumed_study_keeps_its_finished_seeds_and_goes_on_with_the_others(
    deaths: Deaths, start: Launcher
) -> None:
    study = deaths.study
    finished = study / "seed_0" / "rows.parquet"
    before = finished.stat().st_mtime_ns
    assert rounds_of(study / "seed_1") == [0]
    assert start(f"resume={study}") == 0
    assert finished.stat().st_mtime_ns == before
    assert pl.read_parquet(study / "seed_1" / "rows.parquet")["round"].n_unique() == 2
    assert (study / "study.json").exists()
    assert not list(study.rglob("checkpoint"))


@pytest.fixture
def interrupted(start: Launcher, tmp_path: Path, whole: Path) -> Path:
    """A run that was begun and stopped before its first round: only its command line is there."""
    folder = tmp_path / "run"
    (folder / "checkpoint").mkdir(parents=True)
    own = [*TINY, f"store={whole.parent / 'store'}"]
    config = (whole / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config)
    for name in ("versions.json", "inputs.json"):
        shutil.copy(whole / name, folder)
    (folder / "checkpoint" / "command.json").write_text(json.dumps(own))
    return folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["seed=4"], "seed is 0 in the run and 4 now"),
        (["rounds=9"], "rounds is 4 in the run and 9 now"),
        (["engine.cohort_size=3"], "engine.cohort_size is 2 in the run and 3 now"),
        (["tuning.steps=3", "seed=1"], "seed is 0 in the run and 1 now; tuning.steps is 2 in"),
        (["adaptation=always_retune"], "adaptation is not chosen in the run and always_retune now"),
        (["hydra.run.dir=x"], "hydra.run.dir must not be given with resume"),
        (["-m"], "resume continues one run; leave -m away"),
    ],
)
def test_another_run_than_the_one_that_was_begun_is_refused(
    given: list[str],
    said: str,
    interrupted: Path,
    start: Launcher,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(interrupted.rglob("*"))
    assert start(f"resume={interrupted}", *given) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert sorted(interrupted.rglob("*")) == before
    assert list(Path.cwd().iterdir()) == []


def test_other_versions_are_refused(
    interrupted: Path, start: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    (interrupted / "versions.json").write_text('{"torch": "1.0", "checkpoint": 3}')
    assert start(f"resume={interrupted}") == 2
    assert "torch is 1.0 in the run and 2" in capsys.readouterr().err


def test_a_finished_run_is_not_resumed(
    whole: Path, start: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "rows.parquet").stat().st_mtime_ns
    assert start(f"resume={whole}") == 2
    assert f"{whole} holds a finished run; there is nothing to resume" in capsys.readouterr().err
    assert (whole / "rows.parquet").stat().st_mtime_ns == before


def test_a_folder_without_a_run_is_not_resumed(
    tmp_path: Path, start: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(f"resume={tmp_path}") == 2
    assert "resume must name the folder of a run" in capsys.readouterr().err


def test_a_new_run_does_not_take_the_folder_of_an_interrupted_one(
    interrupted: Path, start: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(*TINY, f"hydra.run.dir={interrupted}") == 2
    said = capsys.readouterr().err
    assert "holds a run already" in said
    assert f"resume={interrupted} to continue it" in said


def test_the_number_of_workers_may_be_another_one(interrupted: Path) -> None:
    given = restore_overrides([f"resume={interrupted}", "engine.workers=3"], sweep=False)
    (experiment,) = check_all(given, sweep=False)
    assert (experiment.engine.workers, experiment.run.rounds) == (3, 4)


def test_where_own_policies_are_found_is_remembered(interrupted: Path) -> None:
    command = interrupted / "checkpoint" / "command.json"
    command.write_text(json.dumps(["hydra.searchpath=[file:///x]", *TINY]))
    given = restore_overrides([f"resume={interrupted}"], sweep=False)
    assert given[0] == "hydra.searchpath=[file:///x]"


def test_a_finished_run_leaves_no_checkpoint(whole: Path) -> None:
    assert not (whole / "checkpoint").exists()
