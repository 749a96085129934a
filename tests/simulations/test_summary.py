"""The summary is a fold that ignores row order, and its numbers can be worked out by hand."""

import json
import math
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from simulations.summary import STAGES, HostInfo, RunInfo, summarise
from simulations.tables import headline_cells, headline_table, verdict

HOST = HostInfo(host_seconds=1.5, peak_rss_mb=100.0)


def info(metric: str = "exact_match", reference: str = "always_retune", seed: int = 3) -> RunInfo:
    return RunInfo(
        seed=seed,
        devices=2,
        rounds=2,
        releases=1,
        engine="ray",
        backbone="pocket",
        data="personas",
        quality_metric=metric,
        reference=reference,
        coefficients={"M": 2, "E": 1},
    )


def row(arm: str, device: int, round_: int, energy_j: float, match: float | None) -> dict[str, Any]:
    """A row whose joules are spent on tuning alone."""
    facts = {"arm": arm, "device": device, "round": round_, "decision": "retune"}
    quality = {"nll": None, "exact_match": match, "approval": None, "mae": 2.0}
    costs = {"energy_low_j": energy_j / 2, "energy_high_j": energy_j * 2, "time_s": 3.0}
    stages = {f"energy_j_{stage}": energy_j * (stage == "tune") for stage in STAGES}
    sent = {"down_bytes": 10.0, "up_bytes": 1.0}
    return {**facts, **quality, "energy_j": energy_j, **costs, **stages, **sent}


def small() -> pl.DataFrame:
    """Two devices, two rounds: retuning spends 10, 10, 30, 50 J and the cheap arm 4, 6, 20, 20 J.

    Reference quality: device 0 has (0.5 + 0.7) / 2 = 0.6, device 1 has 0.9 in its one evaluation.
    Cheap quality: device 0 has 0.5, device 1 has 0.9.
    """
    schema = {"nll": pl.Null, "approval": pl.Null}
    records = [
        row("always_retune", 0, 0, 10.0, 0.5),
        row("always_retune", 0, 1, 10.0, 0.7),
        row("always_retune", 1, 0, 30.0, 0.9),
        row("always_retune", 1, 1, 50.0, None),
        row("cheap", 0, 0, 4.0, 0.5),
        row("cheap", 0, 1, 6.0, 0.5),
        row("cheap", 1, 0, 20.0, 0.9),
        row("cheap", 1, 1, 20.0, math.nan),
    ]
    return pl.DataFrame(records, schema_overrides=schema)


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def test_joules_bytes_and_seconds_are_sums() -> None:
    arms = summarise(small(), info(), HOST)["arms"]
    assert arms["always_retune"]["energy_j"]["total"] == 100.0  # 10 + 10 + 30 + 50
    assert arms["cheap"]["energy_j"]["total"] == 50.0  # 4 + 6 + 20 + 20
    assert arms["cheap"]["energy_j"]["low"] == 25.0
    assert arms["cheap"]["energy_j"]["high"] == 100.0
    assert arms["cheap"]["energy_j"]["by_stage"] == {s: 50.0 * (s == "tune") for s in STAGES}
    assert arms["cheap"]["bytes"] == {"down": 40.0, "up": 4.0}
    assert arms["cheap"]["simulated_time_s"] == 12.0
    assert arms["cheap"]["counts"]["retune"] == 4


def test_saving_is_one_minus_the_ratio_of_sums() -> None:
    saving = summarise(small(), info(), HOST)["arms"]["cheap"]["vs_reference"]["energy_saving"]
    assert saving["mean"] == 0.5  # 1 - 50 / 100, not the mean of 1 - 10/20 and 1 - 40/80
    assert saving["ci95"] == [0.5, 0.5]  # both devices save exactly half, whatever is resampled


def test_saving_uses_only_devices_that_both_arms_have() -> None:
    only_first = small().filter((pl.col("arm") != "cheap") | (pl.col("device") == 0))
    saving = summarise(only_first, info(), HOST)["arms"]["cheap"]["vs_reference"]["energy_saving"]
    assert saving == {"mean": 0.5, "ci95": [None, None]}  # 1 - 10 / 20; one device, no interval


def test_quality_is_a_mean_over_devices_of_means_over_rounds() -> None:
    arms = summarise(small(), info(), HOST)["arms"]
    assert arms["always_retune"]["quality"]["mean"] == pytest.approx(0.75)  # (0.6 + 0.9) / 2
    assert arms["cheap"]["quality"]["exact_match"] == pytest.approx(0.7)  # (0.5 + 0.9) / 2
    difference = arms["cheap"]["vs_reference"]["quality_difference"]
    assert difference["mean"] == pytest.approx(-0.05)  # (-0.1 + 0) / 2
    assert difference["ci95"] == [pytest.approx(-0.1), 0.0]  # each device drawn twice is likely


def test_a_metric_where_less_is_better_is_negated() -> None:
    quality = summarise(small(), info("neg_mae"), HOST)["arms"]["cheap"]["quality"]
    assert (quality["mean"], quality["mae"]) == (-2.0, 2.0)


def test_the_reference_differs_from_itself_by_nothing() -> None:
    versus = summarise(small(), info(), HOST)["arms"]["always_retune"]["vs_reference"]
    assert versus["energy_saving"] == {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert versus["quality_difference"] == {"mean": 0.0, "ci95": [0.0, 0.0]}


def test_row_order_changes_nothing(rows: pl.DataFrame) -> None:
    expected = json.dumps(summarise(rows, info(), HOST))
    for seed in range(3):
        shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
        assert json.dumps(summarise(shuffled, info(), HOST)) == expected


def test_another_arm_changes_no_number_of_the_others(rows: pl.DataFrame) -> None:
    fewer = summarise(rows.filter(pl.col("arm") != "always_reuse"), info(), HOST)["arms"]
    every = summarise(rows, info(), HOST)["arms"]
    assert fewer == {arm: every[arm] for arm in fewer}


def test_intervals_hold_their_mean_and_depend_on_the_seed(rows: pl.DataFrame) -> None:
    first = summarise(rows, info(), HOST)["arms"]["edgetune_released"]["quality"]
    other = summarise(rows, info(seed=4), HOST)["arms"]["edgetune_released"]["quality"]
    assert first["ci95"][0] < first["mean"] < first["ci95"][1]
    assert first["mean"] == other["mean"]
    assert first["ci95"] != other["ci95"]


def test_unknown_quantities_are_null_and_never_nan() -> None:
    holes = small().with_columns(
        pl.lit(None).alias("exact_match"), pl.lit(math.nan).alias("time_s"), up_bytes=math.inf
    )
    summary = summarise(holes, info(), HOST)
    json.dumps(summary, allow_nan=False)
    assert not any(isinstance(leaf, float) and math.isnan(leaf) for leaf in leaves(summary))
    assert summary["arms"]["cheap"]["quality"]["mean"] is None
    assert summary["arms"]["cheap"]["simulated_time_s"] is None


def test_the_schema_is_exact() -> None:
    summary = summarise(small(), info(), HOST)
    assert list(summary) == ["schema", "run", "arms", "coefficients", "label"]
    assert summary["schema"] == 1
    shared = "seed devices rounds releases engine backbone data host_seconds peak_rss_mb"
    assert list(summary["run"]) == shared.split()
    arm = summary["arms"]["cheap"]
    assert list(arm) == [
        "quality",
        "counts",
        "energy_j",
        "bytes",
        "simulated_time_s",
        "vs_reference",
    ]
    assert list(arm["quality"]) == [
        "metric",
        "mean",
        "ci95",
        "nll",
        "exact_match",
        "approval",
        "mae",
    ]
    assert list(arm["counts"]) == ["reuse", "retune", "never", "infeasible", "failed"]
    assert list(arm["energy_j"]) == ["total", "low", "high", "by_stage"]
    assert list(arm["vs_reference"]) == ["reference", "energy_saving", "quality_difference"]
    assert summary["coefficients"] == {"M": 2, "F": 0, "S": 0, "V": 0, "E": 1}
    assert summary["label"].startswith("joules and seconds are simulated; ")


def test_errors_name_the_rule_and_the_value() -> None:
    with pytest.raises(ValueError, match=r"reference must be an arm .*'absent'"):
        summarise(small(), info(reference="absent"), HOST)
    with pytest.raises(ValueError, match="8 are doubled"):
        summarise(pl.concat([small(), small()]), info(), HOST)
    with pytest.raises(ValueError, match=r"lack the columns \['energy_j_tune'\]"):
        summarise(small().drop("energy_j_tune"), info(), HOST)
    with pytest.raises(ValueError, match="quality_metric must be one of"):
        info("rouge")


def test_the_verdict_names_what_cannot_be_ruled_out() -> None:
    sentence = verdict(summarise(small(), info(), HOST))
    assert sentence.startswith("cheap used 50.0 % less simulated energy than always_retune")
    assert "a loss of up to 0.100 is not ruled out" in sentence


def test_the_verdict_does_not_hide_a_significant_loss() -> None:
    worse = small().with_columns(
        pl.when(pl.col("arm") == "cheap").then(pl.col("exact_match") - 0.3).otherwise("exact_match")
    )
    assert "without a significant loss" in verdict(summarise(worse, info(), HOST))


def test_the_verdict_claims_nothing_without_quality() -> None:
    blind = small().with_columns(pl.lit(None).alias("exact_match"))
    assert verdict(summarise(blind, info(), HOST)).startswith("Too few devices were evaluated")


def test_the_headline_puts_the_reference_first() -> None:
    summary = summarise(small(), info(reference="cheap"), HOST)
    columns, cells = headline_cells(summary)
    assert [line[0] for line in cells] == ["cheap", "always_retune"]
    assert all(len(line) == len(columns) for line in cells)
    assert cells[0][7] == "50.0 J (25.0 to 100)"
    assert "coefficient tiers M 2 F 0 S 0 V 0 E 1" in str(headline_table(summary).caption)
