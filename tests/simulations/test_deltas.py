"""Deltas in whole runs: refused ones, one frozen A for all, and what a fleet patch is used for."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import hydra
import numpy as np
import polars as pl
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console
from safetensors.numpy import load_file

from fleettune.adapters.updates import updates_of
from fleettune.deltas.frames import read_frame
from simulations.adapter_formats.peft import import_peft
from simulations.cli import main
from simulations.experiment.arms import read_choices
from simulations.experiment.build import build
from simulations.report.run_page import write_report
from simulations.run import run_experiment

RELEASE = (
    "{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, window: 16, "
    "conversations: 50}"
)
TINY = [
    *("fleet.devices=3", "rounds=2", "tuning.steps=3", "release.every=1"),
    f"release.plans=[{RELEASE}]",
    *("data=synthetic_v1", "model=pocket_v1"),
    *("data.exchanges_per_day=2", "data.history_days=2"),
    *("engine.workers=1", "engine.threads=1"),
]
FORGED = {"Poisoned": "not_finite", "Padded": "oversized_payload", "Foreign": "unknown_codec"}

Runner = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A function that runs the tiny fleet with more settings and returns its folder."""
    store = tmp_path_factory.mktemp("store")

    def start(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("run")
        asked = [*TINY, f"store={store}", *overrides]
        with hydra.initialize_config_module("conf", version_base="1.3"):
            cfg = hydra.compose("config", overrides=asked)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        threads = torch.get_num_threads()
        run_experiment(build(cfg, read_choices(overrides)), folder, Console(file=io.StringIO()))
        torch.set_num_threads(threads)
        return folder

    return start


def test_rounds_go_on_with_devices_whose_deltas_are_refused(run: Runner) -> None:
    forged = [
        f"+arms.{name.lower()}={{codec: {{_target_: tests.simulations.forged_codecs.{name}}}}}"
        for name in FORGED
    ]
    fewer = [f"arms.{name}=null" for name in ("edgetune", "copy_nearest", "user_prior")]
    folder = run("fleet_patch=start", *fewer, *forged)
    rounds = pl.read_parquet(folder / "rounds.parquet")
    refused = [name for name in rounds.columns if name.startswith("rejected_")]
    assert set(refused) == {f"rejected_{reason}" for reason in FORGED.values()}
    page = write_report(folder).read_text()
    for name, reason in FORGED.items():
        mine = rounds.filter(pl.col("arm") == name.lower()).sort("round")
        # all three devices tune on both nights; each delta is refused, each night is counted
        assert mine[f"rejected_{reason}"].to_list() == [3, 3]
        assert mine["devices"].to_list() == [3, 3]
        assert mine["failed"].to_list() == [0, 0]
        assert mine["update_norm"].to_list() == [0, 0]
        assert not (folder / f"fleet_patch_{name.lower()}.safetensors").exists()
        assert reason.replace("_", " ") in page
    others = rounds.filter(~pl.col("arm").is_in([name.lower() for name in FORGED]))
    assert not others.select(pl.sum_horizontal(refused)).sum().item()
    assert (others.filter(pl.col("arm") == "always_retune")["update_norm"] > 0).all()


def test_frozen_factors_are_one_a_for_all_and_ffa_takes_every_delta(run: Runner) -> None:
    fewer = [f"arms.{name}=null" for name in ("edgetune", "copy_nearest", "user_prior")]
    folder = run("aggregation=ffa", "+tuning.frozen_a=true", "rounds=1", *fewer)
    rounds = pl.read_parquet(folder / "rounds.parquet")
    assert not [name for name in rounds.columns if name.startswith("rejected_")]
    kept = [
        load_file(folder / f"patches/always_retune/{device}.safetensors") for device in range(3)
    ]
    factors = {name: [one[name] for one in kept] for name in kept[0]}
    for name, values in factors.items():
        alike = all(np.array_equal(values[0], other) for other in values[1:])
        assert alike == name.endswith(".a")
    # the mean of B, over that A, is the mean of effective updates to single precision
    mean = load_file(folder / "fleet_update_always_retune.safetensors")
    alpha = OmegaConf.load(folder / "config.yaml").placement.alpha
    for site, value in mean.items():
        rank = kept[0][f"{site}.a"].shape[0]
        dense = [alpha / rank * one[f"{site}.b"] @ one[f"{site}.a"] for one in kept]
        np.testing.assert_allclose(value, np.mean(dense, axis=0), atol=1e-6)


def test_a_fleet_patch_is_written_sent_and_served_by_devices_that_train_nothing(
    run: Runner,
) -> None:
    fewer = [f"arms.{name}=null" for name in ("edgetune", "copy_nearest", "user_prior")]
    only = "+arms.fleet_only={adaptation: {_target_: clients.adaptation.FleetOnly}}"
    folder = run("fleet_patch=start", "fleet_rank=4", *fewer, only)
    fleet = read_frame((folder / "fleet_patch_always_retune.safetensors").read_bytes())
    assert max(fleet.ranks.values()) == 4
    assert all(update.norm() > 0 for update in updates_of(fleet).values())
    # exported, it is the same update in plain PEFT's format
    into = folder / "adapter"
    assert (
        main(["export", str(folder), "--fleet", "--arm", "always_retune", "--into", str(into)]) == 0
    )
    back = import_peft(into, fleet.release)
    assert Path(back.base).is_dir()
    for site, update in updates_of(fleet).items():
        np.testing.assert_array_equal(updates_of(back.patch)[site].dense(), update.dense())
    rows = pl.read_parquet(folder / "rows.parquet").sort("round", "device")
    served = rows.filter(pl.col("arm") == "fleet_only")
    assert served["reason"].to_list() == ["no_fleet_patch"] * 3 + ["fleet_patch"] * 3
    assert served["train_tokens"].sum() == 0
    # what is sent is received and paid for: more bytes than in an arm that never gets it
    never = rows.filter(pl.col("arm") == "never_personalise")
    more = served["down_bytes"].to_numpy() - never["down_bytes"].to_numpy()
    assert (more[:3] == 0).all()
    assert (more[3:] > 0).all()


def test_a_run_folds_the_fleet_patch_into_a_release_and_learns_beyond_it(run: Runner) -> None:
    fewer = [f"arms.{name}=null" for name in ("edgetune", "copy_nearest", "user_prior")]
    only = "+arms.fleet_only={adaptation: {_target_: clients.adaptation.FleetOnly}}"
    plans = f"release.plans=[{RELEASE}, {{name: merged, kind: merged_fleet}}]"
    folder = run("fleet_patch=start", "rounds=3", *fewer, only, plans)
    releases = pl.read_parquet(folder / "releases.parquet").sort("version")
    assert releases["kind"].to_list() == ["initial", "full", "merged_fleet"]
    assert releases["drift_rms"][2] > 0
    rows = pl.read_parquet(folder / "rows.parquet").sort("round", "device")
    # nothing of the fleet's is sent on the night when it is in the weights already
    served = rows.filter(pl.col("arm") == "fleet_only")["reason"].to_list()
    assert served == ["no_fleet_patch"] * 3 + ["fleet_patch"] * 3 + ["folded"] * 3
    by_round = rows.group_by("arm", "round").agg(pl.col("down_bytes").sum())
    spent = {(arm, night): down for arm, night, down in by_round.iter_rows()}
    more = [spent["always_retune", n] - spent["never_personalise", n] for n in range(3)]
    assert [value > 0 for value in more] == [False, True, False]
    # what is written at the end is what the fleet learned beyond the merged release
    fleet = read_frame((folder / "fleet_patch_always_retune.safetensors").read_bytes())
    assert fleet.release == 2


def test_releases_with_a_fleet_patch_that_nobody_makes_are_refused_at_launch(run: Runner) -> None:
    with pytest.raises(ValueError, match="kind merged_fleet need fleet_patch=start, got none"):
        run("release.plans=[{name: merged, kind: merged_fleet}]")


def test_devices_that_keep_patches_of_earlier_releases_report_their_bytes(run: Runner) -> None:
    fewer = [f"arms.{name}=null" for name in ("edgetune", "copy_nearest", "user_prior")]
    folder = run(*fewer, "+arms.keeping={storage: {shelf: true}}")
    rows = pl.read_parquet(folder / "rows.parquet").sort("round", "device")
    plain, keeping = (rows.filter(pl.col("arm") == arm) for arm in ("always_retune", "keeping"))
    same = ("decision", "reason", "energy_j", "up_bytes", "buffer_bytes", "nll")
    assert plain.select(same).equals(keeping.select(same))
    more = (keeping["stored_bytes"] - plain["stored_bytes"]).to_list()
    assert more[:3] == [0, 0, 0]
    assert min(more[3:]) > 0


def test_a_recalled_cohort_goes_back_to_its_old_release_and_its_old_patch(run: Runner) -> None:
    names = (
        *("always_reuse", "edgetune", "copy_nearest", "user_prior", "never_personalise"),
        "copy_nearest",
    )
    staged = ["rollout=staged", "rollout.recalls=true", "rollout.least=8", "rollout.down_bytes=1.0"]
    nights = ["fleet.devices=10", "release.every=2", "rounds=4"]
    keeping = "+arms.keeping={storage: {shelf: true}}"
    folder = run(*staged, *nights, keeping, *(f"arms.{name}=null" for name in names))
    rows = pl.read_parquet(folder / "rows.parquet")
    third, fourth = (rows.filter(pl.col("round") == night) for night in (2, 3))
    for arm, told in (("always_retune", "back_first_patch"), ("keeping", "back_own_patch")):
        tried = third.filter((pl.col("arm") == arm) & (pl.col("release") == 1))["device"]
        assert len(tried) == 8
        back = fourth.filter((pl.col("arm") == arm) & pl.col("device").is_in(tried.implode()))
        assert back["release"].to_list() == [0] * 8
        assert back["reason"].to_list() == [told] * 8
        assert (back["payload"] == "full").all()
        assert (back["tune_steps"] > 0).all() == (arm == "always_retune")
    # a device that came back was counted when it first had that release
    decisions = pl.read_parquet(folder / "decisions.parquet")
    counts = decisions.filter((pl.col("device_class") == "all") & (pl.col("release") == 0))
    assert counts["devices"].to_list() == [10, 10]
