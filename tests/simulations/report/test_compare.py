"""Runs are found wherever they lie, told apart by their settings, and put side by side."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from simulations.report.compare import compare_runs, find_runs, make_comparison_table

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


def test_only_differing_settings_are_overrides(tmp_path: Path, make_run: MakeRun) -> None:
    shared = "fleet: {devices: 24}\nhydra: {job: x}\n"
    make_run(tmp_path / "a", config=shared + "seed: 1\nengine: {name: ray}\n")
    make_run(tmp_path / "b", config=shared.replace("x", "y") + "seed: 2\nlayers: [1, 2]\n")
    found = {row.run: dict(row.overrides) for row in compare_runs([tmp_path])}
    assert found == {
        "a": {"engine.name": "ray", "layers": "absent", "seed": "1"},
        "b": {"engine.name": "absent", "layers": "[1, 2]", "seed": "2"},
    }


def test_rows_repeat_the_summary(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "a")
    arms = json.loads((run / "summary.json").read_text())["arms"]
    rows = compare_runs([run])
    assert [row.arm for row in rows] == ["always_retune", *sorted(set(arms) - {"always_retune"})]
    for row in rows:
        saving = arms[row.arm]["vs_reference"]["energy_saving"]
        assert row.energy_j == arms[row.arm]["energy_j"]["total"]
        assert row.saving == saving


def test_runs_of_one_name_are_told_apart_by_their_folders(
    tmp_path: Path, make_run: MakeRun
) -> None:
    paths = [make_run(tmp_path / day / "0") for day in ("monday", "tuesday")]
    assert list(dict.fromkeys(row.run for row in compare_runs(paths))) == ["monday/0", "tuesday/0"]


def test_the_table_shows_every_arm_of_every_run(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "a", config="seed: 1\n")
    make_run(tmp_path / "b", config="seed: 2\n", metric="neg_nll")
    console = Console(width=220)
    with console.capture() as capture:
        console.print(make_comparison_table(compare_runs([tmp_path])))
    text = capture.get()
    assert text.count("edgetune_released") == 2
    assert "seed=2" in text
    assert "exact match or log-likelihood" in " ".join(text.split())
