"""Claims about virtual time: deadlines count from a device's own start, order never matters."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.results.round_clock import tabulate_rounds

HOUR = 3600.0
SCHEMA = {"arm": pl.String, "round": pl.Int64, "device": pl.Int64}
Stay = tuple[int, float, float]
"""A device, the hour of its start, and the hours that it works."""


def rows_of(*stays: Stay, round_: int = 0, arm: str = "a") -> pl.DataFrame:
    rows = [(arm, round_, device, start * HOUR, hours * HOUR) for device, start, hours in stays]
    schema = {**SCHEMA, "start_s": pl.Float64, "night_s": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def only_round(rows: pl.DataFrame, deadline_h: float | None = 2) -> dict[str, Any]:
    deadline_s = None if deadline_h is None else deadline_h * HOUR
    (found,) = tabulate_rounds(rows, deadline_s, night_s=24 * HOUR).rows(named=True)
    return found


def test_a_round_without_late_devices_closes_with_its_last_reply() -> None:
    assert only_round(rows_of((1, 11, 1), (0, 14, 0.5), round_=3)) == {
        "arm": "a",
        "round": 3,
        "begins_s": 72 * HOUR,
        "closes_s": 86.5 * HOUR,
        "in_time": 2,
        "late": 0,
    }


def test_the_deadline_counts_from_the_devices_own_start() -> None:
    # Device 1 replies hours after device 0, and is in time; device 0 took 3 hours, and is not.
    found = only_round(rows_of((0, 9, 3), (1, 15, 2)))
    assert (found["in_time"], found["late"], found["closes_s"]) == (1, 1, 17 * HOUR)
    assert only_round(rows_of((0, 9, 3)))["late"] == 1
    assert only_round(rows_of((1, 15, 2)))["late"] == 0


def test_a_late_device_is_waited_for_until_its_deadline() -> None:
    assert only_round(rows_of((0, 15, 9), (1, 11, 1)))["closes_s"] == 17 * HOUR


@pytest.mark.parametrize("deadline_h", [2, None])
def test_what_comes_after_the_night_is_late_whatever_the_deadline(deadline_h: float | None) -> None:
    found = only_round(rows_of((0, 23.5, 1)), deadline_h)
    assert (found["late"], found["closes_s"]) == (1, 24 * HOUR)


def test_a_reply_on_the_deadline_is_in_time() -> None:
    assert only_round(rows_of((0, 10, 2)))["late"] == 0
    assert only_round(rows_of((0, 0, 24)), None)["late"] == 0


def test_a_round_that_nobody_attends_closes_at_its_end() -> None:
    found = only_round(rows_of((0, 0, 0), round_=1))
    assert (found["closes_s"], found["in_time"], found["late"]) == (48 * HOUR, 0, 0)


@given(st.lists(st.tuples(st.floats(0, 24), st.floats(0.1, 24)), min_size=1), st.integers(0, 9))
def test_every_device_is_in_time_or_late_and_order_never_matters(
    spans: list[tuple[float, float]], seed: int
) -> None:
    stays = [(device, *span) for device, span in enumerate(spans)]
    found = only_round(rows_of(*stays, round_=2))
    assert found["in_time"] + found["late"] == len(stays)
    assert found["begins_s"] <= found["closes_s"] <= found["begins_s"] + 24 * HOUR
    random.Random(seed).shuffle(stays)
    assert only_round(rows_of(*stays, round_=2)) == found


@pytest.mark.parametrize(
    ("deadline_s", "night_s", "rule"),
    [
        (None, 0.0, "night_s must be finite and > 0 s, got 0.0"),
        (-1.0, HOUR, "deadline_s must be finite and > 0 s, got -1.0"),
    ],
)
def test_a_length_of_time_out_of_range_is_named(
    deadline_s: float | None, night_s: float, rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        tabulate_rounds(rows_of(), deadline_s, night_s)


def test_a_runs_rows_become_rounds_of_every_arm_in_virtual_time() -> None:
    rows = pl.concat(
        [
            rows_of((0, 11, 1), (1, 14, 3)),
            rows_of((0, 0, 0), round_=1),
            rows_of((0, 11, 1), arm="b"),
        ]
    )
    found = tabulate_rounds(rows, 2 * HOUR, 24 * HOUR)
    assert found.select("arm", "round", "in_time", "late").rows() == [
        ("a", 0, 1, 1),
        ("a", 1, 0, 0),
        ("b", 0, 1, 0),
    ]
    # the late one is given up two hours after its start; nobody came in round 1
    assert found["closes_s"].to_list() == [16 * HOUR, 48 * HOUR, 12 * HOUR]
