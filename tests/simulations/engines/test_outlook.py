"""What is said before a run: counts by hand; what cannot be known is said to be unknown."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest

from simulations.engines.outlook import count_steps, describe_outlook, foresee
from simulations.experiment import lexicons
from simulations.experiment.arms import read_choices
from simulations.experiment.build import Experiment, build
from strategies.releases.publisher import Publisher
from strategies.releases.training import Vendor

RELEASE = (
    "{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, window: 16, "
    "conversations: 20}"
)
TINY = ["fleet.devices=8", "rounds=5", "release.every=2", f"release.plans=[{RELEASE}]"]


def experiment(*overrides: str) -> Experiment:
    lexicons.register_resolver()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config", overrides=[*TINY, *overrides])
    return build(cfg, read_choices(list(overrides)))


def test_steps_are_those_of_every_arm_that_trains_and_a_common_first_tune_counts_once() -> None:
    standard = experiment().arms
    # always_retune 3 x 96, edgetune 48 + 2 x 24; always_reuse shares the first 96
    assert count_steps(standard.values(), 3, 10.0) == 4 * (3 * 96 + 48 + 2 * 24)
    reuse = experiment("adaptation=always_reuse", "tuning.steps=6").arms
    assert count_steps(reuse.values(), 3, 10.0) == 4 * 3 * 6
    epochs = ["tuning.steps=null", "tuning.epochs=2", "tuning.steps_first=null"]
    counted = experiment("adaptation=never_personalise", *epochs).arms
    assert count_steps(counted.values(), 2, 30.0) == 2 * (2 * 30)


def test_the_line_says_what_will_happen_and_how_long_and_how_large(tmp_path: Path) -> None:
    line = describe_outlook(experiment(f"store={tmp_path}"))
    assert line.startswith("8 devices, 5 nights, 3 releases, 5 arms: about ")
    assert "for 2 releases that are not in the store; " in line
    assert "MB stay in its folder" in line


def test_releases_of_the_store_are_not_counted_again(tmp_path: Path) -> None:
    one = experiment(f"store={tmp_path}", "rounds=3")
    assert foresee(one).missing == 1
    plan = one.plan()
    vendor = Vendor(store=tmp_path, population=plan.data.open(), data=plan.data_key, seed=plan.seed)
    Publisher(source=plan.source, schedule=plan.schedule, vendor=vendor).newest(2)
    assert foresee(one).missing == 0
    assert foresee(one).releases_s == 0
    # of the third release the second one is the parent
    assert foresee(experiment(f"store={tmp_path}")).missing == 1


@pytest.mark.parametrize("engine", ["flower", "ray"])
def test_where_the_speed_is_not_known_the_line_says_so(engine: str, tmp_path: Path) -> None:
    address = ["engine.address=10.0.0.1:6379"] if engine == "ray" else []
    line = describe_outlook(experiment(f"engine={engine}", f"store={tmp_path}", *address))
    assert f"how long it takes is not known beforehand with engine={engine}" in line


def test_twice_the_devices_take_longer_and_leave_more(tmp_path: Path) -> None:
    few, many = (
        foresee(experiment(f"store={tmp_path}", f"fleet.devices={count}", "rounds=20"))
        for count in (50, 500)
    )
    assert few.seconds is not None
    assert many.seconds is not None
    # a rate is measured for each; ten times the devices outweigh any noise in it
    assert many.seconds > few.seconds
    assert many.left_bytes > few.left_bytes
    assert many.passing_bytes == 10 * few.passing_bytes
