"""Claims about charge: arithmetic by hand, and no joule made or lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.cost.battery import Charge, charge_battery

PHONE: dict[str, Any] = {
    "soc": 0.5,
    "capacity_wh": 20.0,
    "charge_w": 10.0,
    "efficiency": 0.8,
    "load_w": 3.0,
    "time_s": 3600.0,
}


def test_an_hour_on_the_charger_by_hand() -> None:
    # 8 W reach the phone, 3 W are used: 5 Wh of 20 Wh stored; 10 Wh from the wall.
    done = charge_battery(**PHONE)
    assert done.soc == pytest.approx(0.75)
    assert (done.wall_j, done.battery_j) == (pytest.approx(36_000), pytest.approx(-18_000))
    assert done.served_j == pytest.approx(10_800)


def test_an_hour_off_the_charger_by_hand() -> None:
    # 3 Wh of 20 Wh.
    done = charge_battery(**PHONE | {"charge_w": 0.0})
    assert done == Charge(soc=0.35, wall_j=0.0, battery_j=10_800.0, served_j=10_800.0)


def test_a_full_battery_leaves_the_charger_with_the_load() -> None:
    # 3 W at an efficiency of 0.8 are 3.75 W at the wall.
    done = charge_battery(**PHONE | {"soc": 1.0})
    assert (done.soc, done.battery_j) == (1.0, 0.0)
    assert done.wall_j == pytest.approx(3.75 * 3600)


def test_an_empty_battery_serves_what_the_charger_brings() -> None:
    # 12 W wanted, 8 W come: 4 Wh missing, 0.05 * 20 = 1 Wh there.
    done = charge_battery(**PHONE | {"soc": 0.05, "load_w": 12.0})
    assert done.soc == 0.0
    assert done.battery_j == pytest.approx(3_600)
    assert done.served_j == pytest.approx(9 * 3_600)


def test_a_device_on_mains_has_no_charge_to_lose() -> None:
    done = charge_battery(**PHONE | {"capacity_wh": None, "charge_w": 0.0})
    assert done == Charge(soc=1.0, wall_j=13_500.0, battery_j=0.0, served_j=10_800.0)


shares = st.floats(0, 1)
watts = st.floats(0, 60)


@given(
    soc=shares,
    capacity=st.none() | st.floats(1, 100),
    charge_w=watts,
    efficiency=st.floats(0.3, 1),
    load_w=watts,
    time_s=st.floats(0, 1e5),
)
def test_no_joule_is_made_or_lost(
    soc: float,
    capacity: float | None,
    charge_w: float,
    efficiency: float,
    load_w: float,
    time_s: float,
) -> None:
    done = charge_battery(
        soc=soc,
        capacity_wh=capacity,
        charge_w=charge_w,
        efficiency=efficiency,
        load_w=load_w,
        time_s=time_s,
    )
    asked_j = load_w * time_s
    slack_j = 1e-9 * max(1.0, asked_j, done.wall_j)  # rounding of sums of about that size
    assert done.wall_j * efficiency + done.battery_j == pytest.approx(done.served_j, abs=slack_j)
    assert 0 <= done.soc <= 1
    assert done.served_j <= asked_j + slack_j
    if done.served_j < asked_j - slack_j:
        assert done.soc == pytest.approx(0, abs=1e-9)
    if capacity is not None:
        assert done.wall_j <= charge_w * time_s + slack_j
        lost_j = (soc - done.soc) * capacity * 3600
        assert lost_j == pytest.approx(done.battery_j, abs=1e-9 * capacity * 3600)


@given(soc=shares, charge_w=watts, load_w=watts, first=st.floats(0, 2e4), rest=st.floats(0, 2e4))
def test_two_stretches_are_one(
    soc: float, charge_w: float, load_w: float, first: float, rest: float
) -> None:
    fixed = PHONE | {"charge_w": charge_w, "load_w": load_w}
    whole = charge_battery(**fixed | {"soc": soc, "time_s": first + rest})
    begun = charge_battery(**fixed | {"soc": soc, "time_s": first})
    ended = charge_battery(**fixed | {"soc": begun.soc, "time_s": rest})
    assert ended.soc == pytest.approx(whole.soc, abs=1e-9)
    assert begun.wall_j + ended.wall_j == pytest.approx(whole.wall_j, rel=1e-9, abs=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"soc": -0.1},
        {"capacity_wh": 0.0},
        {"charge_w": -1.0},
        {"efficiency": 0.0},
        {"load_w": float("nan")},
        {"time_s": float("inf")},
    ],
)
def test_a_quantity_out_of_range_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be"):
        charge_battery(**PHONE | change)
