"""Claims about attendance: what a window allows, and that no joule of a night is lost."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.night.attendance import Attendance, charge_after, charging_s, tonight_in
from fleettune.cost.hardware import load_hardware
from fleettune.fleet.availability import Window

HARDWARE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")
PHONE, BOX = HARDWARE["oneplus_12r"], HARDWARE["jetson_orin_nano_8gb"]


def test_a_device_without_a_window_is_absent() -> None:
    tonight = tonight_in(Window(start_s=5.0, length_s=0.0, soc=1.0), PHONE, 0.2, None)
    assert tonight.attends is Attendance.ABSENT


def test_work_starts_once_the_charge_has_reached_the_floor() -> None:
    # From 10 to 20 % of 21.2 Wh at 15 W less 0.5 W of idle draw: 526 s.
    wait_s = 0.1 * 21.2 * 3600 / 14.5
    assert charging_s(0.1, 0.2, PHONE) == pytest.approx(wait_s)
    window = Window(start_s=100.0, length_s=1000.0, soc=0.1)
    tonight = tonight_in(window, PHONE, 0.2, 60.0)
    assert tonight.attends is Attendance.PRESENT
    assert tonight.start_s == pytest.approx(100 + wait_s)
    assert tonight.limit_s == pytest.approx(1000 - wait_s)
    assert (tonight.soc, tonight.deadline_s) == (0.2, 60.0)


def test_a_window_too_short_to_charge_starves_the_device() -> None:
    window = Window(start_s=0.0, length_s=500.0, soc=0.1)
    assert tonight_in(window, PHONE, 0.2, None).attends is Attendance.STARVED
    on_mains = tonight_in(window, BOX, 0.2, None)
    assert (on_mains.attends, on_mains.soc) == (Attendance.PRESENT, 1.0)
    assert on_mains.deadline_s == math.inf


def test_being_taken_away_ends_the_time_before_the_window_does() -> None:
    window = Window(start_s=0.0, length_s=500.0, soc=0.9, stops_s=30.0)
    assert tonight_in(window, PHONE, 0.2, None).limit_s == 30.0


def test_the_battery_gains_what_the_charger_gives_beyond_the_work() -> None:
    # 15 W for 360 s less 1,800 J of work leave 3,600 J, 1 Wh of 21.2.
    assert charge_after(0.5, PHONE, 1800.0, 360.0) == pytest.approx(0.5 + 1 / 21.2)
    # 30 W of work: the battery gives the other half, 1.5 Wh.
    assert charge_after(0.5, PHONE, 10_800.0, 360.0) == pytest.approx(0.5 - 1.5 / 21.2)
    assert charge_after(1.0, BOX, 1e6, 10.0) == 1.0


@given(st.floats(0.3, 0.6), st.floats(0, 9000), st.floats(1, 1500))
def test_charger_and_battery_give_what_the_ledger_says(
    soc: float, worked_j: float, time_s: float
) -> None:
    # far from full and empty, so the battery takes what is left over and gives what is missing
    after = charge_after(soc, PHONE, worked_j, time_s)
    from_battery_j = (soc - after) * 21.2 * 3600
    assert 15 * time_s + from_battery_j == pytest.approx(worked_j, rel=1e-9, abs=1e-6)
