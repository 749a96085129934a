"""Server probes in a run: devices pay for none, the server's ledger does."""

from __future__ import annotations

import io
import json
from pathlib import Path

import hydra
import polars as pl
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.cost.pricing import PricedModel
from fleettune.cost.work import backward_work, forward_work
from fleettune.shapes import MODULES, Site
from simulations.experiment.arms import read_choices
from simulations.experiment.build import Experiment, build
from simulations.experiment.server_probes import list_recipes, probe_flop
from simulations.results.ledgers import SERVER_GFLOPS, SERVER_W, sum_open_time
from simulations.run import run_experiment

TINY = [
    "fleet.devices=2",
    "rounds=2",
    "tuning.steps=4",
    "release.every=1",
    "release.plans=[{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, "
    "window: 16, conversations: 50}]",
    "data.exchanges_per_day=2",
    "data.history_days=2",
    "engine.workers=1",
    "engine.threads=1",
]
CHOSEN = ["placement=gradcut", "placement.probe_rank=2", "placement.probe_batches=2"]
SERVED = [*CHOSEN, "placement.probe=server"]


def configured(*overrides: str) -> DictConfig:
    with hydra.initialize_config_module("conf", version_base="1.3"):
        return hydra.compose("config", overrides=[*TINY, *overrides])


def experiment(*overrides: str) -> Experiment:
    return build(configured(*overrides), read_choices(overrides))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    """A tiny run whose releases the server ranks for one arm."""
    folder = tmp_path_factory.mktemp("run")
    overrides = [*SERVED, f"store={tmp_path_factory.mktemp('store')}"]
    config = OmegaConf.to_yaml(configured(*overrides), resolve=True)
    (folder / "config.yaml").write_text(config)
    served = experiment(*overrides)
    threads = torch.get_num_threads()
    run_experiment(served, folder, Console(file=io.StringIO()))
    torch.set_num_threads(threads)
    return served, folder


def test_devices_tune_by_rankings_and_pay_for_no_probe(run: tuple[Experiment, Path]) -> None:
    served, folder = run
    rows = pl.read_parquet(folder / "rows.parquet")
    (name,) = [arm for arm in served.arms if arm != served.reference]
    own = rows.filter(pl.col("arm") == name)
    assert own["decision"].to_list() == ["retune"] * 4
    assert own["energy_j_probe"].to_list() == [0.0] * 4
    assert own["energy_j_tune"].min() > 0  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]


def test_the_ledger_of_the_server_holds_its_probes(run: tuple[Experiment, Path]) -> None:
    served, folder = run
    rows = pl.read_parquet(folder / "rows.parquet")
    arms = json.loads((folder / "summary.json").read_text())["arms"]
    flop = probe_flop(folder, served.arms, read_shapes(POCKET_FOLDER), served.fleet.priced)
    (name,) = flop
    for arm, part in arms.items():
        ledger = part["energy_j"]["ledgers"]["server"]
        seconds = sum_open_time(rows.filter(pl.col("arm") == arm))
        seconds += flop.get(arm, 0.0) * 1e-9 / SERVER_GFLOPS.value
        assert ledger["joules"] == pytest.approx(seconds * SERVER_W.value)
        assert ("for probes of releases" in ledger["note"]) == (arm == name)


def test_probes_are_counted_for_both_releases_by_hand(run: tuple[Experiment, Path]) -> None:
    served, folder = run
    shapes = read_shapes(POCKET_FOLDER)
    told = json.loads((folder / "server_probes.json").read_text())
    assert [one["release"] for one in told] == [0, 1]
    ranks = {Site(layer, module): 2 for layer in range(shapes.layers) for module in MODULES}
    flop = 0.0
    for batch in (batch for one in told for batch in one["batches"]):
        lengths, head = [tokens for tokens, _ in batch], sum(after for _, after in batch)
        flop += forward_work(shapes, lengths, head, ranks).flop
        flop += backward_work(shapes, lengths, head, ranks).flop
    (found,) = probe_flop(folder, served.arms, shapes, PricedModel()).values()
    assert found == pytest.approx(flop)


def test_nothing_is_probed_that_no_arm_asked_for(tmp_path: Path) -> None:
    plain, served = experiment(*CHOSEN), experiment(*SERVED)
    assert list_recipes(plain.arms) == ()
    (recipe,) = list_recipes(served.arms)
    assert (recipe.benefit, recipe.rank, recipe.batches) == ("gradient", 2, 2)
    plain.plan().write(tmp_path / "plan.json")
    assert "probes" not in json.loads((tmp_path / "plan.json").read_text())
    assert probe_flop(tmp_path, plain.arms, read_shapes(POCKET_FOLDER), plain.fleet.priced) == {}


def test_shared_pairs_by_a_ranking_are_refused_at_launch() -> None:
    with pytest.raises(ValueError, match=r"share_above must be null with placement\.probe=server"):
        experiment(*SERVED, "placement.share_above=0.5")
