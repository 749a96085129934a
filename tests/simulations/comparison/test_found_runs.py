"""Runs are found wherever they lie, and are told apart by their folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from simulations.comparison.found_runs import WORLD, find_runs, read_runs

MakeRun = Callable[..., Path]


def test_a_multirun_directory_holds_its_runs_in_number_order(
    tmp_path: Path, make_run: MakeRun
) -> None:
    made = [make_run(tmp_path / "multirun" / str(job)) for job in (10, 2, 1)]
    assert find_runs([tmp_path]) == made[::-1]
    assert find_runs([made[0], tmp_path]) == [made[0], made[2], made[1]]  # each once


def test_a_path_without_a_finished_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished run at or below"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="name at least one"):
        find_runs([])


def test_runs_of_one_name_are_told_apart_by_their_folders(
    tmp_path: Path, make_run: MakeRun
) -> None:
    paths = [make_run(tmp_path / day / "0") for day in ("monday", "tuesday")]
    assert [run.name for run in read_runs(paths)] == ["monday/0", "tuesday/0"]


def test_a_run_is_read_with_what_was_typed_and_without_its_seed(
    tmp_path: Path, make_run: MakeRun
) -> None:
    config = "seed: 3\nresume: x\nfleet: {devices: 24}\nhydra: {job: x}\nlayers: [1, 2]\n"
    typed = ["seed=3", "+fleet.devices=24", "resume=x"]
    (run,) = read_runs([make_run(tmp_path / "a", config=config, seed=3, typed=typed)])
    assert run.seed == 3
    assert run.settings == {"fleet.devices": "24", "layers": "[1, 2]"}
    assert run.typed == {"fleet.devices": "24"}
    assert list(run.arms) == list(run.summary["arms"])
    assert run.fleet[:2] == ((0, "mid_phone"), (1, "mid_phone"))
    for arm, devices in run.arms.items():
        assert devices.energy_j.sum() == pytest.approx(
            run.summary["arms"][arm]["energy_j"]["total"]
        )


def test_a_part_of_a_study_is_of_the_world_of_its_folder(tmp_path: Path, make_run: MakeRun) -> None:
    config = "seed: 7\nstudy: {seeds: [7], worlds: [{name: even}, {name: odd}]}\n"
    make_run(tmp_path / "even" / "seed_7", config=config)
    make_run(tmp_path / "odd" / "seed_7", config=config)
    assert [run.settings[WORLD] for run in read_runs([tmp_path])] == ["even", "odd"]


def test_a_run_of_another_version_is_refused(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a")
    (run / "summary.json").write_text(json.dumps({"schema": 2}))
    with pytest.raises(ValueError, match="must be of schema 3, got 2"):
        read_runs([run])
