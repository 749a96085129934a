"""The waterfall goes from the reference to the arm of the answer; the others stand beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import polars as pl
import pytest

from simulations.report.waterfall import draw_waterfall, split_arms_shown
from tests.simulations.conftest import INFO

SummaryOf = Callable[..., dict[str, Any]]
ORDER = ("always_retune", "never_personalise", "always_reuse", "edgetune", "later")


@pytest.fixture
def summary(rows: pl.DataFrame, summary_of: SummaryOf) -> dict[str, Any]:
    """A run whose arms are in `ORDER`; never_personalise tunes nothing."""
    whole = pl.col("arm").replace("edgetune_released", "edgetune")
    later = rows.filter(pl.col("arm") == "always_reuse").with_columns(pl.lit("later").alias("arm"))
    idle = pl.col("arm") == "never_personalise"
    tuned = pl.when(idle).then(0.0).otherwise(pl.col("energy_j_tune")).alias("energy_j_tune")
    spent = pl.when(idle).then(pl.col("energy_j") - pl.col("energy_j_tune")).otherwise("energy_j")
    frame = pl.concat([rows.with_columns(whole), later]).with_columns(
        tuned, spent.alias("energy_j")
    )
    return summary_of(frame, replace(INFO, arms=ORDER))


def test_what_tunes_nothing_or_comes_later_stands_beside(summary: dict[str, Any]) -> None:
    steps, others = split_arms_shown(summary)
    assert steps == ["always_retune", "always_reuse", "edgetune"]
    assert others == ["never_personalise", "later"]


def test_an_answer_that_is_not_the_whole_system_has_no_steps(
    rows: pl.DataFrame, summary_of: SummaryOf
) -> None:
    # nothing is lost, so the arm that saves most is the answer
    frame = rows.with_columns(pl.lit(0.5).alias("exact_match"))
    steps, others = split_arms_shown(summary_of(frame, replace(INFO, arms=ORDER)))
    assert steps == ["always_retune", "never_personalise"]
    assert others == ["always_reuse", "edgetune_released"]


def test_without_an_answer_all_that_tune_are_steps(
    rows: pl.DataFrame, summary_of: SummaryOf
) -> None:
    frame = rows.with_columns(pl.lit(None, pl.Float64).alias("exact_match"))
    steps, others = split_arms_shown(summary_of(frame, INFO))
    assert (len(steps), others) == (4, [])


def test_bars_stand_in_that_order_with_their_joules_and_change(summary: dict[str, Any]) -> None:
    figure = draw_waterfall(summary)
    labels = [label["text"] for label in figure["layout"]["annotations"]]
    *shown, others = labels
    assert others == "for comparison"
    names = [text.partition(" ")[0] for text in shown]
    assert names == [
        "<b>always_retune</b>",
        "always_reuse",
        "<b>edgetune</b>",
        "never_personalise",
        "later",
    ]
    places = figure["data"][0]["y"]
    steps = [after - before for before, after in pairwise(places)]
    assert steps == pytest.approx([1, 1, 1.7, 1])  # the gap is behind edgetune
    edgetune = summary["arms"]["edgetune"]
    length = sum(trace["x"][2] for trace in figure["data"])
    assert length == pytest.approx(edgetune["energy_j"]["total"] / (24 * 12))
    change = edgetune["vs_reference"]["quality_difference"]
    assert f"{100 * change['mean']:+.1f} points" in labels[2]
    assert f"[{100 * change['ci95'][0]:+.1f}, {100 * change['ci95'][1]:+.1f}]" in labels[2]
    assert "reference" in labels[0]


def test_tuning_stands_behind_what_all_arms_spend(summary: dict[str, Any]) -> None:
    stages = [trace["name"] for trace in draw_waterfall(summary)["data"]]
    assert (stages[0], stages[-1]) == ("idle", "tune")
