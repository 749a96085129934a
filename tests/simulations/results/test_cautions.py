"""Warnings of a run: each stands where it is true, and nowhere else."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import hydra
import polars as pl
import pytest

from clients.policy import DevicePolicy
from fleettune.backbone.causal_lm import resolve_folder
from simulations.engines.environment import warn_once
from simulations.experiment import lexicons
from simulations.experiment.arms import read_choices
from simulations.experiment.build import build
from simulations.results.cautions import caution_arms, caution_text
from strategies.releases.publisher import SourceModel


def arms_of(*overrides: str) -> dict[str, DevicePolicy]:
    lexicons.register_resolver()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        cfg = hydra.compose("config", overrides=list(overrides))
    return dict(build(cfg, read_choices(list(overrides))).arms)


def rows_of(*arms: str, decision: str = "retune", held: int = 3) -> pl.DataFrame:
    """Two devices that live two nights in which 1 and 2 exchanges arrive."""
    return pl.DataFrame(
        [
            {
                **{"arm": arm, "device": device, "round": night, "release": night},
                **{"decision": decision, "arrived": 1 + night, "energy_j": 5.0},
                "buffer_exchanges": min(held, 1 + 2 * night),
                "buffer_bytes": 100 * min(held, 1 + 2 * night),
            }
            for arm in arms
            for device in range(2)
            for night in range(2)
        ]
    )


def test_an_arm_whose_rows_are_the_references_changed_nothing() -> None:
    arms = arms_of("adaptation=edgetune")
    name, reference = "edgetune", "always_retune"
    assert list(arms) == [reference, name]
    same = rows_of(reference, name)
    assert caution_arms(arms, same) == [
        "arm edgetune changed nothing: all its 4 rows are those of always_retune"
    ]
    # the same decisions at other joules: that is not of the rule
    cheaper = same.with_columns(
        pl.when(pl.col("arm") == name).then(4.0).otherwise("energy_j").alias("energy_j")
    )
    (told,) = caution_arms(arms, cheaper)
    assert told.startswith("adaptation of arm edgetune came to the decision of always_retune on")
    other = pl.concat([rows_of(reference), rows_of(name, decision="reuse")])
    assert caution_arms(arms, other) == []


def test_a_codec_that_differs_is_not_told_that_its_decisions_are_alike() -> None:
    arms = arms_of("codec=int8")
    name = next(arm for arm in arms if arm != "always_retune")
    rows = rows_of("always_retune", name).with_columns(
        pl.when(pl.col("arm") == name).then(4.0).otherwise("energy_j").alias("energy_j")
    )
    assert caution_arms(arms, rows) == []


@pytest.mark.parametrize(("held", "count"), [(3, 1), (2, 0)])
def test_a_selection_rule_is_named_only_if_no_device_dropped_anything(
    held: int, count: int
) -> None:
    arms = arms_of("selection=reservoir", "storage.buffer_bytes=9000")
    name = next(arm for arm in arms if arm != "always_retune")
    rows = rows_of("always_retune", name, held=held).with_columns(
        pl.when(pl.col("arm") == name).then(pl.lit("reuse")).otherwise("decision").alias("decision")
    )
    told = caution_arms(arms, rows)
    assert len(told) == count
    if told:
        assert told[0].startswith(f"selection of arm {name} had nothing to drop: no device held")
        assert "300 of storage.buffer_bytes=9,000 bytes" in told[0]


def test_text_of_people_is_unreadable_for_the_built_in_model_and_its_own_world_is_not(
    tmp_path: Path,
) -> None:
    file = tmp_path / "talk.jsonl"
    line = {
        "question": "Why do whales breach?",
        "response": "Nobody knows; perhaps to communicate.",
    }
    rows = [{**line, "user_id": user, "order": order} for user in range(30) for order in range(12)]
    file.write_text("\n".join(map(json.dumps, rows)))
    source = SourceModel(path=str(resolve_folder("pocket")), template="pocket", max_tokens=48)
    lexicons.register_resolver()
    for data, is_told in ((["data=jsonl", f"data.path={file}"], True), ([], False)):
        with hydra.initialize_config_module("conf", version_base="1.3"):
            cfg = hydra.compose("config", overrides=["fleet.devices=2", *data])
        experiment = build(cfg)
        population = experiment.fleet.data.open()
        told = caution_text("pocket", experiment.plan().source, population)
        assert bool(told) == is_told
        assert caution_text("/a/model", source, population) is None
        if told:
            assert "tokens per word" in told
            assert "model=smollm2_135m" in told


def test_a_log_holds_a_warning_once_and_everything_else_as_often_as_it_is_said() -> None:
    is_new = warn_once()

    def record(level: int, text: str) -> logging.LogRecord:
        return logging.LogRecord("a", level, "", 0, text, (), None)

    warned = [is_new(record(logging.WARNING, text)) for text in ("x", "y", "x")]
    assert warned == [True, True, False]
    assert all(is_new(record(logging.INFO, "x")) for _ in range(2))
