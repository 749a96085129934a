"""Weighted ROC-AUC and error rates against hand-computed values and brute force over pairs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.learning.calibration import effective_size
from strategies.learning.rule_accuracy import (
    ErrorRates,
    ScoredSample,
    error_rates,
    roc_auc,
)

# few distinct scores, so that ties are common
samples = st.lists(
    st.builds(
        ScoredSample,
        score=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1),
        helped=st.booleans(),
        weight=st.floats(0.1, 50),
    ),
    max_size=30,
)
ROUNDING = 1e-9
"""Relative: sums of at most 900 products in two orders."""


def auc_by_brute_force(given_samples: list[ScoredSample]) -> float | None:
    concordant = every = 0.0
    for a in given_samples:
        for b in given_samples:
            if a.helped and not b.helped:
                every += a.weight * b.weight
                won = 1.0 if a.score > b.score else 0.5 if a.score == b.score else 0.0
                concordant += a.weight * b.weight * won
    return concordant / every if every else None


@settings(derandomize=True)
@given(samples)
def test_auc_equals_brute_force_over_all_pairs(made: list[ScoredSample]) -> None:
    found, expected = roc_auc(made), auc_by_brute_force(made)
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)


@settings(derandomize=True)
@given(samples.flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))))
def test_order_changes_no_bit(both: tuple[list[ScoredSample], list[ScoredSample]]) -> None:
    assert roc_auc(both[0]) == roc_auc(both[1])
    assert error_rates(both[0], 0.5) == error_rates(both[1], 0.5)


@settings(derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 4)), max_size=15))
def test_a_weight_of_n_is_n_samples(made: list[tuple[float, bool, int]]) -> None:
    weighted = [ScoredSample(score, helped, count) for score, helped, count in made]
    repeated = [ScoredSample(score, helped) for score, helped, count in made for _ in range(count)]
    assert roc_auc(weighted) == roc_auc(repeated)
    assert error_rates(weighted, 0.5) == error_rates(repeated, 0.5)


def test_auc_by_hand() -> None:
    # helped .9 (weight 2) and .4, others .4 and .1 (weight 3): pairs 2*1 + 2*3 + 1*1/2 + 1*3 of 12
    made = [
        ScoredSample(0.9, True, 2),
        ScoredSample(0.4, True),
        ScoredSample(0.4, False),
        ScoredSample(0.1, False, 3),
    ]
    assert roc_auc(made) == 11.5 / 12


def test_errors_by_hand() -> None:
    # at .5: of the helped 1 of 2 + 1 is reused; of the others 4 of 4 + 3 are retuned
    made = [
        ScoredSample(0.9, True, 2),
        ScoredSample(0.5, True),
        ScoredSample(0.6, False, 4),
        ScoredSample(0.1, False, 3),
    ]
    assert error_rates(made, 0.5) == ErrorRates(false_reuse=1 / 3, false_retune=4 / 7)
    assert error_rates(made[:2], 0.0) == ErrorRates(false_reuse=0.0, false_retune=None)
    assert error_rates([], 0.5) == ErrorRates(false_reuse=None, false_retune=None)


def test_one_class_has_no_auc() -> None:
    assert roc_auc([ScoredSample(0.1, True), ScoredSample(0.9, True)]) is None
    assert roc_auc([]) is None


def test_effective_size_by_hand() -> None:
    assert effective_size([3.0] * 7) == pytest.approx(7)
    # ten of weight 1 and one of weight 10: 20^2 / 110
    assert effective_size([1.0] * 10 + [10.0]) == pytest.approx(400 / 110)
    assert effective_size([]) == 0.0
