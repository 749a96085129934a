"""Faults outside fleettune end in one sentence and exit code 2, and what was saved is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulations.checkpoint.resume import (
    CHECKPOINT,
    STATE_FILE,
    begin_run,
    finish_interrupted,
)
from simulations.command_line import read_command_line
from simulations.faults import explain_fault
from simulations.launch import check_all, split_jobs

ROOT = Path(__file__).parents[2]
TINY = ["fleet=single", "fleet.devices=2", "rounds=2", "adaptation=always_reuse"]
RULE = """
from dataclasses import dataclass

@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    def decide(self, release, patch):
        {body}
"""


def started(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "simulations", *TINY, *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ran(folder: Path, *overrides: str) -> tuple[int, str]:
    process = started(folder, *overrides)
    _, told = process.communicate(timeout=240)
    return process.returncode, told


def errors(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith("error:")]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return 'reuse'", "Odd.decide must return a Decision, got 'reuse'"),
        ("return None", "Odd.decide must return a Decision, got None"),
        ("return release.nothing", "AttributeError in decide of"),
        ("return {}['x']", "KeyError in decide of"),
    ],
)
def test_a_mistake_in_a_policy_of_ones_own_is_one_sentence(
    tmp_path: Path, body: str, sentence: str
) -> None:
    (tmp_path / "odd.py").write_text(RULE.format(body=body))
    options = tmp_path / "conf" / "adaptation"
    options.mkdir(parents=True)
    (options / "odd.yaml").write_text("_target_: odd.Odd\n")
    code, told = ran(
        tmp_path, "--config-dir", "conf", "adaptation=odd", "hydra.run.dir=out", "engine.workers=1"
    )
    assert code == 2, told
    assert len(errors(told)) == 1
    assert sentence in errors(told)[0]
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_run_that_is_stopped_says_how_it_goes_on(tmp_path: Path) -> None:
    process = started(tmp_path, "rounds=400", "hydra.run.dir=out")
    state = tmp_path / "out" / CHECKPOINT / "state.sqlite"
    for _ in range(600):
        if state.exists() and state.stat().st_size > 0:
            break
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2, told
    assert "stopped; every finished round is saved; go on with resume=" in errors(told)[0]
    assert "Traceback" not in told
    assert state.stat().st_mode & 0o077 == 0  # texts of users stand in it


def test_a_run_that_is_stopped_at_its_end_says_what_is_left(tmp_path: Path) -> None:
    assert str(explain_fault(KeyboardInterrupt(), tmp_path)) == (
        "stopped; every finished round is saved"
    )
    (tmp_path / STATE_FILE).parent.mkdir(parents=True)
    (tmp_path / STATE_FILE).touch()
    assert f"; go on with resume={tmp_path}" in str(explain_fault(KeyboardInterrupt(), tmp_path))
    (tmp_path / "summary.json").touch()
    assert str(explain_fault(KeyboardInterrupt(), tmp_path)).endswith(
        f"; the run is complete, `fleettune report {tmp_path}` writes its page"
    )


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder must be")
    code, told = ran(tmp_path, "hydra.run.dir=blocked/out")
    assert code == 2, told
    assert "hydra.run.dir" in errors(told)[0]
    assert "Traceback" not in told


def test_a_log_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out" / "run.log").mkdir(parents=True)
    code, told = ran(tmp_path, "hydra.run.dir=out")
    assert code == 2, told
    assert "run.log" in errors(told)[0]
    assert "Traceback" not in told


@pytest.mark.slow
def test_two_runs_that_begin_in_one_folder_are_one_run_and_one_refusal(tmp_path: Path) -> None:
    first = started(tmp_path, "seed=1", "hydra.run.dir=out")
    other = started(tmp_path, "seed=2", "hydra.run.dir=out")
    told = {1: first.communicate(timeout=240)[1], 2: other.communicate(timeout=240)[1]}
    codes = {1: first.returncode, 2: other.returncode}
    assert sorted(codes.values()) == [0, 2], told
    (won,) = (seed for seed, code in codes.items() if code == 0)
    assert f"seed: {won}\n" in (tmp_path / "out" / "config.yaml").read_text()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["run"]["seed"] == won


def test_a_clean_up_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).mkdir()
    (tmp_path / CHECKPOINT / "state.sqlite").write_text("what a user wrote")
    (tmp_path / "summary.pending.json").write_text("{}")
    assert finish_interrupted(tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]
    assert not finish_interrupted(tmp_path)


def test_the_folder_of_a_run_has_one_owner(tmp_path: Path) -> None:
    from omegaconf import OmegaConf  # noqa: PLC0415 - for this test alone

    cfg = OmegaConf.create({"seed": 1})
    (tmp_path / CHECKPOINT).mkdir()
    (tmp_path / CHECKPOINT / "command.json").touch()  # another process is about to write it
    with pytest.raises(ValueError, match="taken by another run"):
        begin_run(cfg, [], [], tmp_path, [cfg])


def test_a_glob_gives_one_job_per_option_of_its_group() -> None:
    options = {file.stem for file in (ROOT / "conf" / "codec").glob("*.yaml")}
    built = check_all([*TINY, "codec=glob(*)"], sweep=True)
    assert len(built) == len(options)


def test_a_config_dir_is_a_search_path_that_a_resumed_run_finds(tmp_path: Path) -> None:
    for given in (
        ["--config-dir", str(tmp_path)],
        [f"--config-dir={tmp_path}"],
        ["-cd", str(tmp_path)],
    ):
        asked = read_command_line([*given, "fleet=mine", "-m"])
        assert asked.overrides == (
            "fleet=mine",
            f"hydra.searchpath=['file://{tmp_path.resolve()}']",
        )
        assert "--config-dir" not in " ".join(asked.arguments)
        assert asked.sweeps


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--config-dir", "nowhere"], "must name a folder"),
        (["--config-path", "x"], "add yours with --config-dir"),
        (["--config-name=x"], "add options with --config-dir"),
        (["--experimental-rerun", "x.pickle"], "use resume=RUN"),
    ],
)
def test_a_switch_that_would_do_something_else_is_refused_by_name(
    given: list[str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        read_command_line(given)


def test_a_plain_command_line_is_one_job() -> None:
    assert split_jobs(["seed=1"], sweep=False) == [["seed=1"]]
