"""Which runs a sweep has, which are missing, and what it refuses; a killed sweep goes on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simulations.sweeps.grid import describe_points, digest_lines, list_points, number_runs
from simulations.sweeps.kept_runs import (
    KeptRun,
    check_run,
    hold_folder,
    list_missing_steps,
    read_own_overrides,
)

ROOT = Path(__file__).parents[3]
TINY = [
    *("fleet.devices=2", "rounds=3", "release.every=5"),
    *("tuning.steps=2", "tuning.steps_first=2", "tuning.steps_again=2"),
]
GRID = ["seed=1,2", "adaptation=always_reuse,never_personalise"]


def test_a_grid_is_the_product_of_its_values_in_their_order() -> None:
    assert list_points(["seed=range(1,3)", "rounds=2", "codec=choice(int8,fp32)"]) == [
        ("seed=1", "rounds=2", "codec=int8"),
        ("seed=1", "rounds=2", "codec=fp32"),
        ("seed=2", "rounds=2", "codec=int8"),
        ("seed=2", "rounds=2", "codec=fp32"),
    ]
    options = {file.stem for file in (ROOT / "conf" / "adaptation").glob("always_*.yaml")}
    listed = {point[0] for point in list_points(["adaptation=glob(always_*)"])}
    assert listed == {f"adaptation={option}" for option in options}


def test_a_run_is_described_by_what_it_does_not_share() -> None:
    assert describe_points(list_points(["rounds=2", "seed=1,2"])) == ["seed=1", "seed=2"]


def test_the_digest_of_a_grid_is_the_same_whatever_the_order_of_its_values() -> None:
    assert digest_lines(["seed=1", "seed=2"]) == digest_lines(["seed=2", "seed=1"])
    assert digest_lines(["seed=1"]) != digest_lines(["seed=2"])


def test_a_sweep_grows_and_its_runs_keep_their_numbers(tmp_path: Path) -> None:
    first = number_runs(tmp_path, list_points(["seed=2,3"]))
    assert [(run.folder.name, run.overrides) for run in first] == [
        ("0", ("seed=2",)),
        ("1", ("seed=3",)),
    ]
    grown = number_runs(tmp_path, list_points(["seed=1,2,3"]))
    assert [(run.folder.name, run.overrides) for run in grown] == [
        ("0", ("seed=2",)),
        ("1", ("seed=3",)),
        ("2", ("seed=1",)),
    ]
    assert number_runs(tmp_path, list_points(["seed=1,2,3"])) == grown


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path) -> None:
    number_runs(tmp_path, list_points(["seed=1,2"]))
    with pytest.raises(ValueError, match=r"holds another sweep, with the run seed=1; choose"):
        number_runs(tmp_path, list_points(["seed=2,3"]))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be a new folder"), hold_folder(tmp_path, "a.json"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_commands_cannot_have_one_folder(tmp_path: Path) -> None:
    with (
        hold_folder(tmp_path, "a.json"),
        pytest.raises(ValueError, match="in use by another command"),
        hold_folder(tmp_path, "a.json"),
    ):
        pass
    with hold_folder(tmp_path, "a.json"):
        pass


@pytest.mark.parametrize("given", ["hydra.run.dir=x", "resume=x", "hydra/launcher=joblib"])
def test_where_runs_are_is_not_the_users_choice(given: str) -> None:
    with pytest.raises(ValueError, match="must not be given here"):
        read_own_overrides(["seed=1,2", given])


def test_what_is_missing_of_a_run_is_begun_resumed_or_nothing(tmp_path: Path) -> None:
    run = KeptRun(folder=tmp_path / "it's", overrides=("seed=1",))
    begin = ["seed=1", f"hydra.run.dir='{tmp_path}/it\\'s'"]
    assert list_missing_steps(run) == begin
    # killed before its configuration was written: what is there cannot be resumed
    (run.folder / "checkpoint").mkdir(parents=True)
    (run.folder / "checkpoint" / "command.json").write_text("[]")
    assert list_missing_steps(run) == begin
    assert not run.folder.exists()
    run.folder.mkdir()
    (run.folder / "config.yaml").write_text("seed: 1\n")
    assert list_missing_steps(run) == [f"resume='{tmp_path}/it\\'s'"]
    (run.folder / "study.json").write_text("[]")
    assert list_missing_steps(run) == []


def sweep_command(folder: Path, *given: str) -> list[str]:
    command = [sys.executable, "-m", "simulations", "sweep", *TINY, *GRID]
    return [*command, f"store={folder.parent}/store", "--into", str(folder), *given]


def begin(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_when(command: list[str], is_time: Callable[[], bool]) -> None:
    """Begins a sweep and kills it, and only it, as `kill -9` does."""
    process = begin(command)
    while not is_time():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("rows.*")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was never killed."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    printed, _ = begin(sweep_command(folder)).communicate()
    assert printed.splitlines()[-1] == f"Compare them: fleettune compare {folder}"
    return folder


@pytest.mark.slow
def test_a_sweep_that_was_killed_twice_ends_by_the_same_command_with_the_same_rows(
    whole: Path,
) -> None:
    killed = whole.parent / "killed"
    command = sweep_command(killed, "--jobs", "2")
    kill_when(command, (killed / "1" / "checkpoint" / "state.sqlite").exists)
    kill_when(command, (killed / "2" / "checkpoint" / "state.sqlite").exists)
    finished = [run for run in sorted(killed.iterdir()) if (run / "summary.json").exists()]
    kept = {run: (run / "rows.parquet").stat().st_mtime_ns for run in finished}
    last = begin(command)
    printed, _ = last.communicate()
    assert last.returncode == 0, printed
    assert "4 runs" in printed
    assert len(contents(whole)) == 4
    assert contents(killed) == contents(whole)
    assert {run: (run / "rows.parquet").stat().st_mtime_ns for run in finished} == kept
    # and it is over: another call runs nothing
    assert "4 finished, 0 to resume, 0 to begin" in begin(command).communicate()[0]


@pytest.mark.slow
def test_a_sweep_does_not_mix_runs_of_two_configurations(whole: Path, tmp_path: Path) -> None:
    overrides = json.loads((whole / "sweep.json").read_text())[0]
    run = KeptRun(folder=tmp_path / "0", overrides=tuple(overrides))
    shutil.copytree(whole / "0", run.folder)
    assert check_run(run)
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("rounds: 3", "rounds: 4"))
    with pytest.raises(ValueError, match="rounds is 4 in the run and 3 now; choose another --into"):
        check_run(run)
    config.write_text(config.read_text().replace("rounds: 4", "rounds: 3"))
    versions = run.folder / "versions.json"
    versions.write_text(versions.read_text().replace('"torch": "', '"torch": "0'))
    with pytest.raises(ValueError, match=r"torch is 0.* in the run and .*choose another --into"):
        check_run(run)
