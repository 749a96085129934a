"""Totals of a whole fleet: by hand, and as often right as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from simulations.results.extrapolation import extrapolate


def test_two_classes_by_hand() -> None:
    # N = 100: 60 of a with mean 2, variance 2 (1, 3); 40 of b with mean 10, variance 8 (8, 12)
    values = {"a": np.array([1.0, 3.0]), "b": np.array([8.0, 12.0])}
    found = extrapolate(values, {"a": 3, "b": 2}, 100)
    assert found.total == pytest.approx(60 * 2 + 40 * 10)
    first, second = 60**2 * (1 - 2 / 60) * 2 / 2, 40**2 * (1 - 2 / 40) * 8 / 2
    freedom = (first + second) ** 2 / (first**2 + second**2)
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(first + second)
    assert (found.low, found.high) == pytest.approx((520 - half, 520 + half))
    assert (found.represents, found.simulated, found.pooled) == (100, 4, ())


def test_classes_with_one_device_or_none_are_pooled_and_named() -> None:
    values = {"a": np.array([1.0, 3.0, 5.0]), "b": np.array([10.0]), "c": np.array([20.0])}
    found = extrapolate(values, {"a": 0.5, "b": 0.2, "c": 0.2, "d": 0.1}, 1000)
    assert found.pooled == ("b", "c", "d")
    assert found.total == pytest.approx(500 * 3 + 500 * 15)


def test_a_lone_device_joins_the_smallest_class() -> None:
    values = {"a": np.array([1.0, 3.0]), "b": np.array([10.0]), "e": np.array([4.0, 6.0])}
    found = extrapolate(values, {"a": 0.3, "b": 0.1, "e": 0.6}, 100)
    assert found.pooled == ("a", "b")
    assert found.total == pytest.approx(40 * 14 / 3 + 60 * 5)


def test_one_device_has_a_total_and_no_interval() -> None:
    found = extrapolate({"a": np.array([7.0])}, {"a": 1.0}, 10)
    assert (found.total, found.low, found.high) == (70.0, None, None)


def test_a_fleet_that_was_simulated_whole_has_no_doubt() -> None:
    found = extrapolate({"a": np.array([1.0, 2.0, 6.0])}, {"a": 1.0}, 3)
    assert (found.total, found.low, found.high) == (9.0, 9.0, 9.0)


@given(st.floats(0.1, 100), st.lists(st.floats(0, 1e6), min_size=2, max_size=9))
@example(1.0, [0.0, 5.5e-160])
def test_an_extrapolation_scales_with_its_values(factor: float, values: list[float]) -> None:
    once = extrapolate({"a": np.array(values)}, {"a": 1.0}, 50)
    more = extrapolate({"a": factor * np.array(values)}, {"a": 1.0}, 50)
    assert more.total == pytest.approx(factor * once.total, rel=1e-9)
    assert more.low == pytest.approx(factor * (once.low or 0.0), rel=1e-6, abs=1e-3)


def test_ninety_five_intervals_of_a_hundred_hold_the_truth() -> None:
    rng = np.random.default_rng(4)
    population = {"a": rng.normal(100, 20, 6000), "b": rng.normal(300, 80, 4000)}
    truth = math.fsum(float(one.sum()) for one in population.values())
    held = 0
    for _ in range(400):
        is_b = rng.random(60) < 0.4
        sample = {
            "a": rng.choice(population["a"], int((~is_b).sum()), replace=False),
            "b": rng.choice(population["b"], int(is_b.sum()), replace=False),
        }
        found = extrapolate(sample, {"a": 0.6, "b": 0.4}, 10_000)
        held += (found.low or 0.0) <= truth <= (found.high or 0.0)
    assert 0.92 <= held / 400 <= 0.975  # 0.95 with a standard error of 0.011


def test_what_cannot_be_extrapolated_is_refused() -> None:
    one = {"a": np.array([1.0, 2.0])}
    with pytest.raises(ValueError, match="at least one simulated device"):
        extrapolate({"a": np.array([])}, {"a": 1.0}, 10)
    with pytest.raises(ValueError, match="represents must be >= 2 simulated devices, got 1"):
        extrapolate(one, {"a": 1.0}, 1)
    with pytest.raises(ValueError, match=r"shares must be > 0 .* \['a'\]"):
        extrapolate(one, {"b": 1.0}, 10)
    with pytest.raises(ValueError, match="values must be finite"):
        extrapolate({"a": np.array([1.0, math.nan])}, {"a": 1.0}, 10)
