"""Claims about labels, each worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.data.exchanges import Answer
from fleettune.data.labels import absolute_error, likeliest_answer, user_prior

MOODS = (
    Answer(response="unpleasant, calm", values=(-1.0, 0.0)),
    Answer(response="neutral, medium", values=(0.0, 1.0)),
    Answer(response="very pleasant, high", values=(2.0, 2.0)),
)


def test_the_answer_with_the_lowest_nll_is_predicted() -> None:
    assert likeliest_answer([2.5, 0.3, 1.0]) == 1


def test_a_tie_goes_to_the_first_answer() -> None:
    assert likeliest_answer([1.0, 0.5, 0.5]) == 1


@pytest.mark.parametrize("nll", [[], [0.1, math.nan]])
def test_no_prediction_is_made_from_nothing_or_from_nan(nll: list[float]) -> None:
    with pytest.raises(ValueError, match="nll_by_answer must hold"):
        likeliest_answer(nll)


def test_absolute_error_is_the_mean_over_labels() -> None:
    # |2 - -1| = 3 in valence, |2 - 0| = 2 in arousal; (3 + 2) / 2 = 2.5
    assert absolute_error(MOODS, predicted_index=2, true_index=0) == 2.5
    assert absolute_error(MOODS, predicted_index=1, true_index=1) == 0.0


@pytest.mark.parametrize(("guess", "truth"), [(-1, 0), (0, 3)])
def test_an_index_outside_the_answers_is_an_error(guess: int, truth: int) -> None:
    with pytest.raises(ValueError, match=r"index must be 0\.\.2"):
        absolute_error(MOODS, guess, truth)


def test_answers_without_label_values_have_no_error_measure() -> None:
    with pytest.raises(ValueError, match="at least one label value"):
        absolute_error((Answer(response="yes", values=()),), 0, 0)


def test_the_prior_is_the_users_own_smoothed_frequency() -> None:
    # Counts 2, 0, 1 and one each: 3, 1, 2 of 6.
    expected = [math.log(3 / 6), math.log(1 / 6), math.log(2 / 6)]
    assert user_prior([0, 2, 0], answers=3) == pytest.approx(expected)
    # Counts 2, 0 and a half each: 2.5, 0.5 of 3.
    expected = [math.log(2.5 / 3), math.log(0.5 / 3)]
    assert user_prior([0, 0], answers=2, smoothing=0.5) == pytest.approx(expected)


def test_without_history_every_answer_is_equally_likely() -> None:
    assert user_prior([], answers=4) == pytest.approx([math.log(1 / 4)] * 4)


@given(st.integers(1, 32).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1)))))
def test_the_prior_is_a_distribution(case: tuple[int, list[int]]) -> None:
    answers, history = case
    assert math.fsum(map(math.exp, user_prior(history, answers))) == pytest.approx(1.0)


def test_an_impossible_prior_is_an_error() -> None:
    with pytest.raises(ValueError, match="smoothing must be a number > 0"):
        user_prior([0], answers=2, smoothing=0.0)
    with pytest.raises(ValueError, match=r"index must be 0\.\.1"):
        user_prior([2], answers=2)
    with pytest.raises(ValueError, match="answers must be >= 1"):
        user_prior([], answers=0)
