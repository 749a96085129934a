"""Claims about heat: closed forms by hand, and against small steps of time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.cost.heat import Node, throttled_s

NODE = Node(ambient_c=25.0, resistance_k_per_w=6.0, tau_s=90.0, cap_c=42.0, slowest=0.2)


def stepped_s(slowest: float, work: float, power: float, idle: float, start: float) -> float:
    """Explicit Euler on NODE's numbers, with the governor written down as a rule per step."""
    ambient, resistance, tau, cap = 25.0, 6.0, 90.0, 42.0
    room = ((cap - ambient) / resistance - idle) / power
    held = min(max(room, slowest), 1.0)
    step = tau / 4000
    temperature, done, time = start, 0.0, 0.0
    while done < work:
        eta = 1.0 if temperature < cap - 1e-9 else held
        step_s = min(step, (work - done) / eta)
        flow = ambient + (idle + eta * power) * resistance - temperature
        temperature += step_s * flow / tau
        done, time = done + eta * step_s, time + step_s
    return time


def test_cool_work_runs_at_full_speed() -> None:
    # 25 + (0.5 + 2) * 6 = 40 is below 42
    assert throttled_s(NODE, 90.0, 2.0, 0.5, start_c=28.0) == 90.0


def test_hot_work_slows_down_to_the_power_that_holds_the_cap() -> None:
    # (42 - 25) / 6 - 0.5 = 2.3333 W of 4 W: eta 0.58333. Steady 52, so the cap is reached after
    # 90 * ln((52 - 28) / (52 - 42)) = 78.79 s; 1000 - 78.79 s of work then take 1 579.2 s.
    to_cap = 90 * math.log(2.4)
    expected = to_cap + (1000 - to_cap) / (7 / 12)
    assert throttled_s(NODE, 1000.0, 4.0, 0.5, start_c=28.0) == pytest.approx(expected)


def test_no_device_works_below_its_slowest_speed() -> None:
    # 58 % of the speed would hold the cap, 75 % is the least that this device does
    to_cap = 90 * math.log(2.4)
    node = replace(NODE, slowest=0.75)
    expected = to_cap + (5000 - to_cap) / 0.75
    assert throttled_s(node, 5000.0, 4.0, 0.5, start_c=28.0) == pytest.approx(expected)


def test_a_device_that_starts_too_hot_starts_slowly() -> None:
    assert throttled_s(NODE, 700.0, 4.0, 0.5, start_c=45.0) == pytest.approx(1200)


def test_nothing_happens_in_no_time() -> None:
    assert throttled_s(NODE, 0.0, 4.0, 0.5, start_c=30.0) == 0


def test_work_of_no_power_is_no_heat() -> None:
    assert throttled_s(NODE, 100.0, 0.0, 0.5, start_c=28.0) == 100


@settings(max_examples=25, deadline=None)  # each walks up to 60,000 steps in Python
@given(
    work=st.floats(20, 600),
    power=st.floats(0.5, 12),
    idle=st.floats(0.0, 1.0),
    start=st.floats(20, 48),
    slowest=st.floats(0.3, 0.9),
)
def test_the_closed_form_agrees_with_small_steps(
    work: float, power: float, idle: float, start: float, slowest: float
) -> None:
    closed = throttled_s(replace(NODE, slowest=slowest), work, power, idle, start)
    # 1 %: Euler's own error with 4000 steps per time constant is below 0.1 %.
    assert closed == pytest.approx(stepped_s(slowest, work, power, idle, start), rel=0.01)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"tau_s": 0.0}, "tau_s must be > 0, got 0.0"),
        ({"slowest": 0.0}, "slowest must be > 0"),
        ({"slowest": 1.5}, "slowest must be <= 1, got 1.5"),
        ({"ambient_c": float("nan")}, "ambient_c must be finite"),
    ],
)
def test_a_bad_node_is_named(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        replace(NODE, **change)


def test_negative_work_is_refused() -> None:
    with pytest.raises(ValueError, match=r"work_s must be >= 0, got -1"):
        throttled_s(NODE, -1.0, 1.0, 0.5, 28.0)
