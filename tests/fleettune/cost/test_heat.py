"""Claims about heat: closed forms by hand, and against small steps of time."""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.cost.heat import Heat, Node, throttle

NODE = Node(ambient_c=25.0, resistance_k_per_w=6.0, tau_s=90.0, cap_c=42.0, slowest=0.2)


def stepped(slowest: float, work: float, power: float, idle: float, start: float) -> Heat:
    """Explicit Euler on NODE's numbers, with the governor written down as a rule per step."""
    ambient, resistance, tau, cap = 25.0, 6.0, 90.0, 42.0
    room = ((cap - ambient) / resistance - idle) / power
    held = min(max(room, slowest), 1.0)
    step = tau / 4000
    temperature, done, time, energy = start, 0.0, 0.0, 0.0
    while done < work:
        eta = 1.0 if temperature < cap - 1e-9 else held
        step_s = min(step, (work - done) / eta)
        drawn = idle + eta * power
        flow = ambient + drawn * resistance - temperature
        temperature += step_s * flow / tau
        done, time, energy = done + eta * step_s, time + step_s, energy + drawn * step_s
    return Heat(time_s=time, energy_j=energy, slowed_s=0.0, end_c=temperature, is_over_cap=False)


def test_cool_work_runs_at_full_speed() -> None:
    # 25 + (0.5 + 2) * 6 = 40 is below 42; after one tau 63.2 % of the way from 28 to 40.
    heat = throttle(NODE, 90.0, 2.0, 0.5, start_c=28.0)
    assert (heat.time_s, heat.energy_j, heat.slowed_s) == (90.0, pytest.approx(225.0), 0.0)
    assert heat.end_c == pytest.approx(28 + 12 * (1 - math.exp(-1)))
    assert not heat.is_over_cap


def test_hot_work_slows_down_to_the_power_that_holds_the_cap() -> None:
    # (42 - 25) / 6 - 0.5 = 2.3333 W of 4 W: eta 0.58333. Steady 52, so the cap is reached after
    # 90 * ln((52 - 28) / (52 - 42)) = 78.79 s; 1000 - 78.79 s of work then take 1 579.2 s.
    heat = throttle(NODE, 1000.0, 4.0, 0.5, start_c=28.0)
    to_cap = 90 * math.log(2.4)
    assert heat.slowed_s == pytest.approx((1000 - to_cap) / (7 / 12))
    assert heat.time_s == pytest.approx(to_cap + heat.slowed_s)
    assert heat.end_c == pytest.approx(42)
    assert not heat.is_over_cap


def test_slowing_down_keeps_the_works_joules_and_adds_idle_ones() -> None:
    heat = throttle(NODE, 1000.0, 4.0, 0.5, start_c=28.0)
    assert heat.energy_j == pytest.approx(4 * 1000 + 0.5 * heat.time_s)
    assert heat.energy_j > 4.5 * 1000


def test_below_the_slowest_speed_the_cap_is_passed_and_said_so() -> None:
    # At 0.75 of 4 W: 25 + 3.5 * 6 = 46 is where it ends.
    heat = throttle(replace(NODE, slowest=0.75), 5000.0, 4.0, 0.5, start_c=28.0)
    assert heat.end_c == pytest.approx(46)
    assert heat.is_over_cap


def test_a_device_that_starts_too_hot_starts_slowly() -> None:
    heat = throttle(NODE, 700.0, 4.0, 0.5, start_c=45.0)
    assert heat.slowed_s == heat.time_s == pytest.approx(1200)
    assert heat.end_c == pytest.approx(42, abs=1e-3)


def test_one_device_gives_plain_numbers() -> None:
    heat = throttle(NODE, 1000.0, 4.0, 0.5, start_c=28.0)
    assert [type(value) for value in astuple(heat)] == [float, float, float, float, bool]


def test_nothing_happens_in_no_time() -> None:
    heat = throttle(NODE, 0.0, 4.0, 0.5, start_c=30.0)
    assert (heat.time_s, heat.energy_j, heat.end_c) == (0, 0, 30)


def test_work_of_no_power_is_no_heat() -> None:
    assert throttle(NODE, 100.0, 0.0, 0.5, start_c=28.0).time_s == 100


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
    node = replace(NODE, slowest=slowest)
    closed = throttle(node, work, power, idle, start)
    walked = stepped(slowest, work, power, idle, start)
    # 1 %: Euler's own error with 4000 steps per time constant is below 0.1 %.
    assert closed.time_s == pytest.approx(walked.time_s, rel=0.01)
    assert closed.energy_j == pytest.approx(walked.energy_j, rel=0.01)
    assert closed.end_c == pytest.approx(walked.end_c, rel=0.01)


def test_arrays_are_their_elements() -> None:
    rng = np.random.default_rng(0)
    work, power, tau = rng.uniform(10, 5000, 50), rng.uniform(0, 9, 50), rng.uniform(55, 150, 50)
    start = rng.uniform(20, 50, 50)
    many = throttle(replace(NODE, tau_s=tau), work, power, 0.5, start)
    for i in range(50):
        one = throttle(replace(NODE, tau_s=float(tau[i])), work[i], power[i], 0.5, start[i])
        for name in ("time_s", "energy_j", "slowed_s", "end_c", "is_over_cap"):
            # 1e-12: SIMD and scalar exp and log differ in the last bit
            assert getattr(many, name)[i] == pytest.approx(getattr(one, name), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"tau_s": 0.0}, "tau_s must be > 0, got 0.0"),
        ({"slowest": 0.0}, "slowest must be > 0"),
        ({"slowest": np.array([0.5, 1.5])}, "slowest must be <= 1, got 1.5"),
        ({"ambient_c": float("nan")}, "ambient_c must be finite"),
    ],
)
def test_a_bad_node_is_named(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        replace(NODE, **change)


def test_negative_work_is_refused() -> None:
    with pytest.raises(ValueError, match=r"work_s must be >= 0, got -1"):
        throttle(NODE, -1.0, 1.0, 0.5, 28.0)
