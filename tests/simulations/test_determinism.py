"""Determinism: equal experiments give equal bytes, however their devices are grouped."""

from __future__ import annotations

import io
import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path

import hydra
import polars as pl
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from clients.adaptation.decision import Action
from simulations.experiment.arms import read_choices
from simulations.experiment.build import build
from simulations.results.recorder import SCHEMA
from simulations.run import run_experiment

RELEASE = (
    "{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, window: 16, "
    "conversations: 50}"
)
TINY = [
    "fleet.devices=8",
    "rounds=3",
    *("tuning.steps=6", "tuning.steps_again=4", "tuning.steps_first=null"),
    "release.every=1",
    f"release.plans=[{RELEASE}]",
    "data.exchanges_per_day=2",
    "data.history_days=2",
    "engine.workers=1",
    "engine.threads=1",
]
MODEL_NUMBERS = (
    *("nll", "drift", "strength", "score"),
    *("canary_before", "canary_worse", "canary_after"),
)
"""What comes out of the model's arithmetic; everything else is counted or computed from counts."""

Runner = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A function that runs the tiny fleet with some settings changed and returns its folder."""
    store = tmp_path_factory.mktemp("store")

    def start(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("run")
        asked = [*TINY, f"store={store}", *overrides]
        with hydra.initialize_config_module("conf", version_base="1.3"):
            cfg = hydra.compose("config", overrides=asked)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        threads = torch.get_num_threads()
        experiment = build(cfg, read_choices(overrides))
        run_experiment(experiment, folder, Console(file=io.StringIO()))
        torch.set_num_threads(threads)
        return folder

    return start


@pytest.fixture(scope="module")
def whole(run: Runner) -> Path:
    """The tiny fleet in one cohort, with all standard arms."""
    return run("engine.cohort_size=64")


def rows_of(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "rows.parquet")


def assert_same_but_for_rounding(rows: pl.DataFrame, others: pl.DataFrame) -> None:
    """Same devices, decisions, counts, work, bytes and joules; model numbers to 1e-4.

    Single precision rounds at 6e-8 per operation, and a batch of another shape adds in another
    order; six optimizer steps of Adam, which divides by small moments, widen that.
    """
    for name in rows.columns:
        if name in MODEL_NUMBERS:
            pairs = zip(rows[name].to_list(), others[name].to_list(), strict=True)
            for one, other in pairs:
                near = (one is None and other is None) or one == pytest.approx(
                    other, rel=1e-4, abs=1e-5
                )
                assert near, (name, one, other)
        else:
            assert rows[name].to_list() == others[name].to_list(), name


def test_the_run_is_one_that_could_go_wrong(whole: Path) -> None:
    rows = rows_of(whole)
    assert rows.height == 5 * 8 * 3
    assert set(rows["decision"]) >= {Action.RETUNE, Action.REUSE, Action.NEVER}
    assert set(rows["release"]) == {0, 1, 2}
    assert rows["nll"].n_unique() > 40
    assert set(rows.filter(pl.col("decision") == "retune")["tune_steps"]) == {6, 4}
    assert rows["eval_exchanges"].sum() > 2 * 120


def test_the_same_run_twice_is_the_same_bytes(whole: Path, run: Runner) -> None:
    again = run("engine.cohort_size=64")
    for name in ("rows.parquet", "work.parquet", "rounds.parquet", "releases.parquet"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    deltas = sorted(whole.glob("*.safetensors"))
    assert deltas
    for file in deltas:
        assert (again / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("cohort_size", [1, 7])
def test_the_size_of_a_cohort_changes_rounding_at_most(
    whole: Path, run: Runner, cohort_size: int
) -> None:
    other = run(f"engine.cohort_size={cohort_size}")
    assert_same_but_for_rounding(rows_of(whole), rows_of(other))


def test_an_arm_does_not_depend_on_which_arms_live_beside_it(whole: Path, run: Runner) -> None:
    other = rows_of(run("engine.cohort_size=64", "adaptation=always_reuse"))
    assert sorted(set(other["arm"])) == ["always_retune", "always_reuse"]
    both = rows_of(whole).filter(pl.col("arm").is_in(["always_retune", "always_reuse"]))
    assert_same_but_for_rounding(both, other)


def test_a_device_does_not_depend_on_how_many_others_there_are(whole: Path, run: Runner) -> None:
    other = rows_of(run("engine.cohort_size=64", "fleet.devices=3"))
    assert_same_but_for_rounding(rows_of(whole).filter(pl.col("device") < 3), other)


def test_another_seed_is_another_fleet(whole: Path, run: Runner) -> None:
    other = rows_of(run("engine.cohort_size=64", "seed=1", "fleet.devices=3", "rounds=1"))
    same = rows_of(whole).filter((pl.col("device") < 3) & (pl.col("round") == 0))
    assert other["train_tokens"].to_list() != same["train_tokens"].to_list()


def test_the_joules_of_the_rows_are_those_of_the_summary(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    rows = rows_of(whole)
    assert set(summary["arms"]) == set(rows["arm"])
    for arm, entry in summary["arms"].items():
        mine = rows.filter(pl.col("arm") == arm)
        assert entry["energy_j"]["total"] == math.fsum(mine["energy_j"])
        by_stage = entry["energy_j"]["by_stage"]
        for stage, joules in by_stage.items():
            assert joules == math.fsum(mine[f"energy_j_{stage}"])
        # Stages add up to the total but for the rounding of a sum in double precision.
        assert math.fsum(by_stage.values()) == pytest.approx(entry["energy_j"]["total"], rel=1e-12)


def test_what_the_server_sums_is_the_fold_of_the_rows(whole: Path) -> None:
    rows = rows_of(whole)
    rounds = pl.read_parquet(whole / "rounds.parquet")
    assert rounds.height == 5 * 3
    for entry in rounds.iter_rows(named=True):
        mine = rows.filter(
            (pl.col("arm") == entry["arm"]) & (pl.col("round") == entry["round"])
        ).sort("device")
        assert entry["devices"] == mine.height == 8
        assert entry["failed"] == 0
        assert set(mine["release"]) == {entry["release"]}
        for name in ("energy_j", "up_bytes", "down_bytes"):
            assert entry[name] == pytest.approx(math.fsum(mine[name]), rel=1e-12)  # double sums
        for action in Action:
            counted = entry.get(f"decided_{action}", 0)
            assert counted == (mine["decision"] == action.value).sum()
        assert (entry["update_norm"] > 0) == (entry.get("decided_retune", 0) > 0)


def test_rows_hold_simulated_quantities_only(whole: Path) -> None:
    columns = rows_of(whole).columns
    assert columns == list(SCHEMA)
    host = {"host_seconds", "peak_rss_mb", "wall_s", "started", "worker", "cohort"}
    assert not host & set(columns)
    words = " ".join(columns)
    assert not [word for word in ("host", "rss", "wall", "clock", "cohort") if word in words]


def test_the_page_of_columns_tells_of_every_column_of_every_file(whole: Path) -> None:
    script = Path(__file__).parents[2] / "docs" / "reference" / "write_columns.py"
    list_unknown = runpy.run_path(str(script))["list_unknown"]
    files = sorted(whole.glob("*.parquet"))
    assert {file.stem for file in files} >= {"rows", "work", "rounds", "clock", "releases"}
    unknown = {file.stem: list_unknown(file.stem, pl.read_parquet_schema(file)) for file in files}
    assert {name: columns for name, columns in unknown.items() if columns} == {}


def test_a_finished_run_is_never_overwritten(whole: Path) -> None:
    before = (whole / "rows.parquet").read_bytes()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        experiment = build(hydra.compose("config", overrides=["fleet.devices=1", "rounds=1"]))
    with pytest.raises(ValueError, match="holds a finished run; choose another"):
        run_experiment(experiment, whole, Console(file=io.StringIO()))
    assert (whole / "rows.parquet").read_bytes() == before
