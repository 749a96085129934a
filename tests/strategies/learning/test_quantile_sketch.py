"""Sketches: every quantile within the stated relative error, and nothing lost by merging."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.records import from_record, to_record
from strategies.learning.quantile_sketch import LARGEST, ZERO, Sketch, sketch_values

numbers = st.floats(-1e12, 1e12) | st.floats(-1e-6, 1e-6) | st.sampled_from([0.0, -1e299, 1e299])
lists = st.lists(numbers, max_size=50)
SLACK = 1 + 1e-11
"""Logarithm and exponential round: about 700 times 2^-53 in an exponent, far below this."""


@settings(derandomize=True)
@given(
    st.lists(numbers, min_size=1, max_size=50),
    st.floats(0, 1),
    st.sampled_from([0.001, 0.01, 0.1, 0.5]),
)
def test_every_quantile_is_within_alpha_of_the_number_of_its_rank(
    values: list[float], share: float, alpha: float
) -> None:
    exact = sorted(values)[math.floor(share * (len(values) - 1))]
    found = sketch_values(values, alpha).quantile(share)
    assert abs(found - exact) <= alpha * abs(exact) * SLACK + ZERO


@settings(derandomize=True)
@given(lists, lists, lists)
def test_sketches_are_a_commutative_monoid_that_loses_nothing(
    a: list[float], b: list[float], c: list[float]
) -> None:
    x, y, z = sketch_values(a), sketch_values(b), sketch_values(c)
    assert x + y == y + x == sketch_values([*b, *a])
    assert (x + y) + z == x + (y + z) == sketch_values([*c, *a, *b])
    assert x + Sketch() == x


@settings(derandomize=True)
@given(lists)
def test_a_sketch_comes_back_from_json_and_knows_its_count(values: list[float]) -> None:
    sketch = sketch_values(values, 0.05)
    plain = json.loads(json.dumps(to_record(sketch)))
    assert from_record(plain, {"Sketch": Sketch}, "sketch") == sketch
    assert sketch.count == len(values)


def test_buckets_by_hand() -> None:
    # alpha = 1/3 makes gamma = 2: buckets (1/2, 1], (1, 2], (2, 4], (4, 8]; the middle of (2, 4]
    # is 2 * 4 / 3, a third from either end
    sketch = sketch_values([0.0, 3.0, 3.5, 7.0, -3.0], alpha=1 / 3)
    assert sketch == Sketch(alpha=1 / 3, positive=((2, 2), (3, 1)), negative=((2, 1),), zeros=1)
    assert sketch.quantile(0) == pytest.approx(-8 / 3)
    assert sketch.quantile(0.25) == 0.0
    assert sketch.quantile(0.5) == pytest.approx(8 / 3)
    assert sketch.quantile(1) == pytest.approx(16 / 3)


def test_a_million_fold_range_takes_few_buckets() -> None:
    # a million is 690.8 buckets away from one, which has the bucket 0 to itself
    sketch = sketch_values([10 ** (index / 10_000) for index in range(60_000)])
    assert len(sketch.positive) == 1 + 691


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2 * LARGEST])
def test_a_number_without_a_bucket_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="a sketched number must be within"):
        sketch_values([value])


@pytest.mark.parametrize("alpha", [0.0, 0.6, math.nan])
def test_an_error_bound_that_bounds_nothing_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha must be > 0 and <= 0\.5"):
        sketch_values([1.0], alpha)


def test_unlike_sketches_and_empty_ones_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one alpha, got 0\.01 and 0\.02"):
        _ = sketch_values([1.0], 0.01) + sketch_values([1.0], 0.02)
    with pytest.raises(ValueError, match="an empty sketch has no quantiles"):
        Sketch().quantile(0.5)
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        sketch_values([1.0]).quantile(1.5)
