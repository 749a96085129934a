import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from fleettune.cost.hardware import load_hardware
from simulations import doctor
from simulations.cli import main

HARDWARE = Path(__file__).parent.parent.parent / "conf" / "hardware"

Capture = pytest.CaptureFixture[str]


def test_devices_lists_every_profile_with_the_tiers_of_its_numbers(capsys: Capture) -> None:
    assert main(["devices"]) == 0
    printed = capsys.readouterr().out
    names = set(load_hardware(HARDWARE))
    assert len(names) == 13
    assert {name for name in names if f"{name} (" in printed} == names
    assert "none was measured by this project" in " ".join(printed.split())
    assert printed.index("FLOP of training above idle") < printed.rindex("galaxy_s25")


def test_devices_lists_the_profiles_that_are_named(capsys: Capture) -> None:
    assert main(["devices", "pixel_7", "nova_9_pro", "pixel_7"]) == 0
    printed = capsys.readouterr().out
    names = set(load_hardware(HARDWARE))
    assert {name for name in names if name in printed} == {"pixel_7", "nova_9_pro"}
    assert printed.count("pixel_7 (") == 1


def test_an_unknown_device_is_refused_in_one_sentence_that_lists_the_known(capsys: Capture) -> None:
    assert main(["devices", "pixel_7", "pixel_77", "jetson"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    known = ", ".join(sorted(load_hardware(HARDWARE)))
    told = f"a device profile must be one of {known}; got pixel_77, jetson"
    assert printed.err == f"error: {told}\n"


def test_report_writes_the_page_of_a_run_again(
    tmp_path: Path, make_run: Callable[..., Path], capsys: Capture
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    assert Path(capsys.readouterr().out.strip()) == (run / "report.html").resolve()
    assert (run / "report.html").is_file()


def test_compare_folds_seeds_and_names_the_winner_first(
    tmp_path: Path, make_run: Callable[..., Path], capsys: Capture
) -> None:
    runs = [make_run(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    assert main(["compare", *map(str, runs)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("(2 seeds)") == 4
    assert "wins" in printed.splitlines()[0]


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_folder_that_is_no_run_is_bad_input(
    command: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert main([command, str(tmp_path / "absent")]) == 2
    assert "finished run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_summary_of_somebody_else_is_bad_input(
    command: str, tmp_path: Path, make_run: Callable[..., Path], capsys: Capture
) -> None:
    run = make_run(tmp_path / "run")
    (run / "summary.json").write_text(json.dumps({"schema": 99}))
    assert main([command, str(run)]) == 2
    assert "schema 3" in capsys.readouterr().err


def test_no_command_is_bad_input_and_prints_the_help(capsys: Capture) -> None:
    assert main([]) == 2
    bare = capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert bare.err == capsys.readouterr().out
    assert "run a simulation" in bare.err
    assert bare.out == ""


def test_the_version_is_that_of_the_package(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    declared = tomllib.loads((HARDWARE.parents[1] / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"fleettune {declared['version']}\n"


def test_run_hands_its_arguments_to_the_launcher(capsys: Capture) -> None:
    assert main(["run", "seed=abc"]) == 2
    assert "seed must be a whole number, got 'abc'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "given", [["seed=abc"], ["-m", "seed=abc"], ["+seed=abc"], ["--config-path", "x"], ["~seed"]]
)
def test_the_word_run_may_be_left_away(given: list[str], capsys: Capture) -> None:
    assert main(["run", *given]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert main(given) == 2
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (["run", "seed=abc"], 2, "error: seed must be a whole number, got 'abc'"),
        (["seed=abc"], 2, "error: seed must be a whole number, got 'abc'"),
        (["report", "absent"], 2, "error: absent"),
        (["--version"], 0, "fleettune "),
        ([], 2, "usage: fleettune "),
    ],
)
def test_the_module_is_the_command(given: list[str], code: int, told: str, tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(HARDWARE.parents[1])}
    command = [sys.executable, "-m", "simulations", *given]
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code
    assert (done.stdout + done.stderr).startswith(told)


def test_the_doctor_finds_what_is_required(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # no SmolLM2 here
    monkeypatch.delenv("FLEETTUNE_DATA", raising=False)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"{importlib.metadata.version('torch')}" in printed
    assert "`make smollm2` fetches it" in printed


def test_the_doctor_fails_where_a_required_package_is_missing(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "list_required", lambda: ["numpy", "no-such-package"])
    assert main(["doctor"]) == 1
    assert "required and missing: no-such-package" in capsys.readouterr().err


def test_extras_are_not_required() -> None:
    assert "flwr" in doctor.list_required()
    assert not {"pytest", "gguf"} & set(doctor.list_required())
