"""Trackers: their numbers are those of summary.json, and nothing else of a run changes."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from simulations.checkpoint.resume import begin_run, check_unchanged
from simulations.engines.tracked_run import TrackedRun
from simulations.experiment import lexicons
from simulations.experiment.arms import read_choices
from simulations.experiment.build import build
from simulations.results.tracked_numbers import NightNumbers, list_final_numbers
from simulations.run import run_experiment
from simulations.trackers import Mlflow, Track
from simulations.trackers.mlflow_store import MLFLOW_FILE
from simulations.trackers.tensorboard_events import EVENTS
from simulations.trackers.tracker import check_installed

TINY = [
    *("fleet.devices=2", "rounds=2", "adaptation=always_reuse", "tuning.steps=2"),
    *("data.exchanges_per_day=2", "data.history_days=2", "engine.workers=1"),
]
ARMS = ("always_retune", "always_reuse")

Runner = Callable[..., Path]
Numbers = dict[str, dict[int, float]]
"""Values by name and night."""


def composed(*overrides: str) -> DictConfig:
    lexicons.register_resolver()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        return hydra.compose("config", overrides=[*TINY, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A function that runs two devices for two nights and returns the folder."""

    def start(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("run")
        cfg = composed(*overrides)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        threads = torch.get_num_threads()
        experiment = build(cfg, read_choices([*TINY, *overrides]))
        run_experiment(experiment, folder, Console(file=io.StringIO()))
        torch.set_num_threads(threads)
        return folder

    return start


@pytest.fixture(scope="module")
def plain(run: Runner) -> Path:
    return run()


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def assert_right(found: Numbers, folder: Path) -> None:
    """The numbers of the end are the summary's, and the last night's joules are its total."""
    summary = summary_of(folder)
    final = list_final_numbers(summary)
    assert {name: by_night[1] for name, by_night in found.items() if name in final} == final
    for arm in ARMS:
        by_night = found[f"night/{arm}/energy_j"]
        assert set(by_night) == {0, 1}
        assert 0 < by_night[0] < by_night[1] == summary["arms"][arm]["energy_j"]["total"]
        assert found[f"night/{arm}/retune"][1] == summary["arms"][arm]["counts"]["retune"]


def assert_unchanged(folder: Path, plain: Path, own: str) -> None:
    """Every other file is what it is without a tracker, but for seconds of the host."""
    names = {file.name for file in plain.iterdir()}
    assert {file.name for file in folder.iterdir()} - names == {own}
    measured = {"summary.json", "host.json", "report.html", "config.yaml", "plan.json"}
    for name in names - measured:
        if (plain / name).is_file():
            assert (folder / name).read_bytes() == (plain / name).read_bytes(), name
    one, other = summary_of(folder), summary_of(plain)
    for summary in (one, other):
        del summary["host"], summary["run"]["host_seconds"], summary["run"]["peak_rss_mb"]
    assert one == other


def test_tensorboard_holds_the_numbers_of_the_summary_to_the_last_bit(
    run: Runner, plain: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
        EventAccumulator,
    )
    from tensorboard.util.tensor_util import make_ndarray  # noqa: PLC0415

    folder = run("tracker=tensorboard")
    events: Any = EventAccumulator(str(folder / EVENTS))
    events.Reload()
    found = {
        name: {one.step: float(make_ndarray(one.tensor_proto)) for one in events.Tensors(name)}
        for name in events.Tags()["tensors"]
    }
    assert_right(found, folder)
    assert_unchanged(folder, plain, EVENTS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_the_numbers_of_the_summary_to_the_last_bit(
    run: Runner, plain: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    folder = run("tracker=mlflow")
    assert capfd.readouterr().err == ""
    client: Any = MlflowClient(tracking_uri=f"sqlite:///{folder}/{MLFLOW_FILE}")
    number = client.get_experiment_by_name("fleettune").experiment_id
    (kept,) = client.search_runs([number])
    assert kept.info.status == "FINISHED"
    found = {
        name: {one.step: one.value for one in client.get_metric_history(kept.info.run_id, name)}
        for name in kept.data.metrics
    }
    assert_right(found, folder)
    assert_unchanged(folder, plain, MLFLOW_FILE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_goes_on_in_the_same_run_of_mlflow(tmp_path: Path) -> None:
    tracker = Mlflow(uri=None, experiment="mine")
    tracker.open(tmp_path, 0).log({"x": 1.0}, 0)
    again: Any = tracker.open(tmp_path, 1)
    again.log({"x": 2.0}, 1)
    history = again.client.get_metric_history(again.run, "x")
    assert [(one.step, one.value) for one in history] == [(0, 1.0), (1, 2.0)]


def row(
    arm: str, night: int, energy_j: float, decision: str, right: float | None
) -> dict[str, Any]:
    return {
        **{"arm": arm, "round": night, "energy_j": energy_j, "decision": decision},
        "exact_match": right,
    }


def test_joules_and_counts_add_up_over_nights_and_quality_is_of_one() -> None:
    numbers = NightNumbers(("a", "b"), "exact_match")
    for one in (row("a", 0, 0.1, "retune", 0.5), row("a", 0, 0.2, "none", None)):
        numbers.note_row(one)
    first = numbers.end_night()
    assert first == {
        **{"night/a/energy_j": math.fsum((0.1, 0.2)), "night/a/retune": 1, "night/a/reuse": 0},
        **{"night/a/quality": 0.5, "night/b/energy_j": 0, "night/b/retune": 0, "night/b/reuse": 0},
    }
    numbers.note_row(row("a", 1, 0.3, "reuse", 0.25))
    second = numbers.end_night()
    assert second["night/a/energy_j"] == math.fsum((0.1, 0.2, 0.3))
    assert (second["night/a/quality"], second["night/a/reuse"]) == (0.25, 1)


def test_a_tracker_whose_package_is_missing_says_what_to_install() -> None:
    with pytest.raises(ValueError, match=r"tracker=x needs the package no_such: pip install '.*\["):
        check_installed("x", "no_such")


@dataclass(frozen=True, kw_only=True)
class Unreachable:
    def check(self) -> None:
        pass

    def open(self, folder: Path, night: int) -> Track:
        raise ConnectionError("no route to host")


def test_a_tracker_that_fails_ends_in_a_sentence_that_says_how_to_go_on(tmp_path: Path) -> None:
    tracked = TrackedRun(Unreachable(), tmp_path, ("a",), "exact_match")
    with pytest.raises(ValueError, match=r"no route to host.*resume=RUN tracker=none"):
        tracked.end_night(0)


def test_a_run_may_be_resumed_with_another_tracker_and_with_no_other_metric(tmp_path: Path) -> None:
    cfg = composed()
    begin_run(cfg, TINY, [], tmp_path, [cfg])
    resumed = composed("tracker=mlflow", f"resume={tmp_path}")
    check_unchanged(resumed, [resumed])
    other = composed("tracker=mlflow", f"resume={tmp_path}", "quality.metric=neg_nll")
    with pytest.raises(ValueError, match=r"quality\.metric is auto in the run and neg_nll now"):
        check_unchanged(other, [other])
