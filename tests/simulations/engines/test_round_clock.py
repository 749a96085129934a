"""Claims about virtual time: deadlines count from a device's own start, order never matters."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.engines.round_clock import RoundClock, Stay, timeline

HOUR = 3600.0
CLOCK = RoundClock(night_s=24 * HOUR, deadline_s=2 * HOUR)


def stay(device: int, start_h: float, hours: float) -> Stay:
    return Stay(device=device, start_s=start_h * HOUR, duration_s=hours * HOUR)


def test_a_round_without_late_devices_closes_with_its_last_reply() -> None:
    time = CLOCK.round_time(3, [stay(1, 11, 1), stay(0, 14, 0.5)])
    assert (time.begins_s, time.ends_s) == (72 * HOUR, 96 * HOUR)
    assert time.arrivals == ((1, 84 * HOUR), (0, 86.5 * HOUR))
    assert time.closes_s == 86.5 * HOUR
    assert (time.in_time, time.late) == ((0, 1), ())


def test_the_deadline_counts_from_the_devices_own_start() -> None:
    # Device 1 replies hours after device 0, and is in time; device 0 took 3 hours, and is not.
    time = CLOCK.round_time(0, [stay(0, 9, 3), stay(1, 15, 2)])
    assert (time.in_time, time.late) == ((1,), (0,))


def test_a_late_device_is_waited_for_until_its_deadline() -> None:
    time = CLOCK.round_time(0, [stay(0, 15, 9), stay(1, 11, 1)])
    assert time.closes_s == 17 * HOUR


def test_what_comes_after_the_night_is_late_whatever_the_deadline() -> None:
    for clock in (CLOCK, RoundClock(night_s=24 * HOUR, deadline_s=None)):
        time = clock.round_time(0, [stay(0, 23.5, 1)])
        assert (time.late, time.closes_s) == ((0,), 24 * HOUR)


def test_a_reply_on_the_deadline_is_in_time() -> None:
    assert not CLOCK.is_late(stay(0, 10, 2))
    assert not RoundClock(night_s=24 * HOUR).is_late(stay(0, 0, 24))


def test_a_round_that_nobody_attends_closes_at_its_end() -> None:
    time = CLOCK.round_time(1, [])
    assert (time.closes_s, time.arrivals, time.late) == (48 * HOUR, (), ())


@given(st.lists(st.tuples(st.floats(0, 24), st.floats(0, 24)), max_size=12), st.integers(0, 9))
def test_every_device_is_in_time_or_late_and_order_never_matters(
    spans: list[tuple[float, float]], seed: int
) -> None:
    stays = [stay(device, *span) for device, span in enumerate(spans)]
    time = CLOCK.round_time(2, stays)
    assert sorted((*time.in_time, *time.late)) == list(range(len(stays)))
    assert time.begins_s <= time.closes_s <= time.ends_s
    assert all(time.begins_s <= at <= time.closes_s for _, at in time.arrivals)
    random.Random(seed).shuffle(stays)
    assert CLOCK.round_time(2, stays) == time


def test_a_device_replies_once() -> None:
    with pytest.raises(ValueError, match="device 4 must stay once in round 0"):
        CLOCK.round_time(0, [stay(4, 1, 1), stay(4, 2, 1)])


@pytest.mark.parametrize(
    ("make", "given", "rule"),
    [
        (RoundClock, {"night_s": 0.0}, "night_s must be finite and > 0 s, got 0.0"),
        (RoundClock, {"deadline_s": -1.0}, "deadline_s must be null or finite and > 0 s"),
        (Stay, {"device": 7, "start_s": -1.0, "duration_s": 0.0}, "start_s of device 7 must be"),
        (Stay, {"device": 7, "start_s": 0.0, "duration_s": float("nan")}, "duration_s of device 7"),
    ],
)
def test_a_time_out_of_range_is_named(make: Any, given: dict[str, Any], rule: str) -> None:  # noqa: ANN401 - a class
    with pytest.raises(ValueError, match=rule):
        make(**given)


def test_a_round_has_a_number() -> None:
    with pytest.raises(ValueError, match="round must be >= 0, got -1"):
        CLOCK.round_time(-1, [])


def test_a_runs_rows_become_rounds_in_virtual_time() -> None:
    rows = pl.DataFrame(
        {
            "arm": ["a", "a", "a", "b"],
            "round": [0, 0, 1, 0],
            "device": [0, 1, 0, 0],
            "start_s": [11 * HOUR, 14 * HOUR, 0.0, 11 * HOUR],
            "night_s": [HOUR, 3 * HOUR, 0.0, HOUR],
        }
    )
    found = timeline(rows, CLOCK)
    assert found.select("arm", "round", "in_time", "late").rows() == [
        ("a", 0, 1, 1),
        ("a", 1, 0, 0),
        ("b", 0, 1, 0),
    ]
    # the late one is given up two hours after its start; nobody came in round 1
    assert found["closes_s"].to_list() == [16 * HOUR, 48 * HOUR, 12 * HOUR]
