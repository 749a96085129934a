"""The timeline shows the middle device of the answer's arm, every night of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from simulations.report.device_life import choose_device, draw_device_life
from simulations.results.device_means import split_arms
from tests.simulations.conftest import INFO

RELEASES = pl.DataFrame({"version": [0, 1], "name": ["base", "mild"], "round": [0, 4]})


def test_the_device_is_the_lower_of_two_in_the_middle() -> None:
    energy = {"device": [0, 1, 2, 3, 3], "energy_j": [5.0, 1.0, 2.0, 2.0, 2.0]}
    # sums are 5, 1, 2 and 4
    assert choose_device(pl.DataFrame(energy)) == 2


def test_every_night_of_the_device_is_drawn(
    rows: pl.DataFrame, summary_of: Callable[..., dict[str, Any]]
) -> None:
    whole = rows.with_columns(pl.col("arm").replace("edgetune_released", "edgetune"))
    summary, arms = summary_of(whole, replace(INFO, releases=2)), split_arms(whole)
    figure = draw_device_life(arms, RELEASES, summary)
    device = choose_device(arms["edgetune"])
    nights = arms["edgetune"].filter(pl.col("device") == device)
    bars = [trace for trace in figure["data"] if trace["type"] == "bar"]
    assert sorted(night for trace in bars for night in trace["x"]) == list(range(12))
    joules = sum(value for trace in bars for value in trace["y"])
    assert joules == pytest.approx(nights["energy_j"].sum())
    for trace in bars:
        decided = nights.filter(pl.col("round").is_in(trace["x"]))["decision"].unique().to_list()
        assert decided == ["none" if trace["name"] == "nothing to decide" else trace["name"]]
    crosses = [trace["x"] for trace in figure["data"] if trace["name"] == "no reply"]
    late = nights.filter(pl.col("attendance") == "late")["round"].to_list()
    assert crosses == ([late] if late else [])
    lines = [trace["name"] for trace in figure["data"] if trace.get("yaxis") != "y2"]
    assert lines == ["always_retune", "edgetune"]
    marks = [mark["x0"] for mark in figure["layout"]["shapes"]]
    assert marks == [0, 4]
