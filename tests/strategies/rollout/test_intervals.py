"""Intervals against published tables and against exact binomial coverage."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.rollout.intervals import NORMAL, Interval, student_quantile, wilson


def test_wilson_by_hand() -> None:
    # z^2 = 3.8415; 5 of 20: (.25 + .09604) / 1.19207 -+ 1.96 sqrt(.009375 + .0024009) / 1.19207
    found = wilson(0.25, 20)
    assert (found.low, found.high) == pytest.approx((0.1119, 0.4687), abs=5e-5)
    # none of 20: 0 to z^2 / (n + z^2)
    none = wilson(0.0, 20)
    assert (none.low, none.high) == (0.0, pytest.approx(NORMAL**2 / (20 + NORMAL**2)))


@pytest.mark.parametrize("size", [20, 40, 100])
def test_wilson_covers_close_to_its_level_on_average_over_rates(size: int) -> None:
    weights = [math.comb(size, count) for count in range(size + 1)]
    limits = [wilson(count / size, size) for count in range(size + 1)]
    rates = [place / 200 for place in range(1, 200)]
    covered = [
        sum(
            weight * rate**count * (1 - rate) ** (size - count)
            for count, weight in enumerate(weights)
            if limits[count].covers(rate)
        )
        for rate in rates
    ]
    # Agresti and Coull 1998, fig. 4: Wilson's coverage swings around 95 % and dips near 0 and 1
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.83


@settings(derandomize=True)
@given(st.floats(0, 1), st.floats(0.1, 1e9))
def test_wilson_holds_its_rate_within_zero_and_one_and_mirrors(rate: float, size: float) -> None:
    found, mirrored = wilson(rate, size), wilson(1 - rate, size)
    assert 0 <= found.low <= rate <= found.high <= 1
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-9)


def test_more_observations_never_widen_an_interval() -> None:
    widths = [wilson(0.3, size).half_width for size in (1, 5, 20, 100, 1e4, math.inf)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0.0


@pytest.mark.parametrize(
    ("degrees", "table"),
    [(1, 12.706205), (2, 4.302653), (4, 2.776445), (10, 2.228139), (60, 2.000298)],
)
def test_student_equals_the_table(degrees: int, table: float) -> None:
    assert student_quantile(degrees) == pytest.approx(table, abs=1e-6)


def test_an_interval_covers_its_limits_and_what_rounding_makes_of_them() -> None:
    total = Interval(value=0.6, low=0.6, high=0.6)
    assert total.covers(0.1 + 0.2 + 0.3)
    assert not total.covers(0.601)
    assert Interval(value=2.0, low=1.0, high=4.0).half_width == 1.5


def test_what_makes_no_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a rate must be from 0 to 1, got 1\.5"):
        wilson(1.5, 20)
    with pytest.raises(ValueError, match="must be > 0 observations, got 0"):
        wilson(0.5, 0)
    with pytest.raises(ValueError, match=">= 1 degree of freedom, got 0"):
        student_quantile(0)
    with pytest.raises(ValueError, match="low <= value <= high"):
        Interval(value=1.0, low=2.0, high=3.0)
