"""Claims about charge: arithmetic by hand, and no joule made or lost in the battery."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.cost.battery import charge_battery

PHONE: dict[str, Any] = {
    "soc": 0.5,
    "capacity_wh": 20.0,
    "charge_w": 10.0,
    "efficiency": 0.8,
    "load_w": 3.0,
    "time_s": 3600.0,
}


def test_an_hour_on_the_charger_by_hand() -> None:
    # 8 W reach the phone, 3 W are used: 5 Wh of 20 Wh stored.
    assert charge_battery(**PHONE) == pytest.approx(0.75)


def test_an_hour_off_the_charger_by_hand() -> None:
    # 3 Wh of 20 Wh.
    assert charge_battery(**PHONE | {"charge_w": 0.0}) == 0.35


def test_a_full_battery_takes_no_more() -> None:
    assert charge_battery(**PHONE | {"soc": 1.0}) == 1.0


def test_an_empty_battery_gives_no_more() -> None:
    # 12 W wanted, 8 W come: 4 Wh missing, 0.05 * 20 = 1 Wh there.
    assert charge_battery(**PHONE | {"soc": 0.05, "load_w": 12.0}) == 0.0


shares = st.floats(0, 1)
watts = st.floats(0, 60)


@given(
    soc=shares,
    capacity=st.floats(1, 100),
    charge_w=watts,
    efficiency=st.floats(0.3, 1),
    load_w=watts,
    time_s=st.floats(0, 1e5),
)
def test_what_the_charger_brings_and_the_load_leaves_is_in_the_battery(
    soc: float, capacity: float, charge_w: float, efficiency: float, load_w: float, time_s: float
) -> None:
    done = charge_battery(
        soc=soc,
        capacity_wh=capacity,
        charge_w=charge_w,
        efficiency=efficiency,
        load_w=load_w,
        time_s=time_s,
    )
    stored_j = soc * capacity * 3600 + (charge_w * efficiency - load_w) * time_s
    expected = min(max(stored_j / (capacity * 3600), 0.0), 1.0)
    assert done == pytest.approx(expected, abs=1e-9)
    assert 0 <= done <= 1


@given(soc=shares, charge_w=watts, load_w=watts, first=st.floats(0, 2e4), rest=st.floats(0, 2e4))
def test_two_stretches_are_one(
    soc: float, charge_w: float, load_w: float, first: float, rest: float
) -> None:
    fixed = PHONE | {"charge_w": charge_w, "load_w": load_w}
    whole = charge_battery(**fixed | {"soc": soc, "time_s": first + rest})
    begun = charge_battery(**fixed | {"soc": soc, "time_s": first})
    assert charge_battery(**fixed | {"soc": begun, "time_s": rest}) == pytest.approx(
        whole, abs=1e-9
    )


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
