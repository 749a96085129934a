"""Labels: what an answer means where answers are a closed set, such as valence and arousal.

A language model predicts by scoring every answer of the set; its prediction is the answer with
the lowest negative log-likelihood. `user_prior` is the rival without a model: how often this
user gave each answer before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from fleettune.data.exchanges import Answer


def likeliest_answer(nll_by_answer: Sequence[float]) -> int:
    """Returns the index of the likeliest answer; the lowest index among equals.

    Args:
        nll_by_answer: Negative log-likelihood of each answer, in the order of the population.

    Raises:
        ValueError: If there is no answer or a value is not a number.
    """
    if not nll_by_answer:
        raise ValueError("nll_by_answer must hold at least one value, got none")
    if any(math.isnan(nll) for nll in nll_by_answer):
        raise ValueError(f"nll_by_answer must hold numbers only, got {list(nll_by_answer)}")
    return min(range(len(nll_by_answer)), key=lambda index: nll_by_answer[index])


def absolute_error(answers: Sequence[Answer], predicted_index: int, true_index: int) -> float:
    """Returns the mean over the labels of |predicted value - true value|.

    Args:
        answers: The closed set of answers, in the order of the population.
        predicted_index: Which answer was predicted.
        true_index: Which answer the user gave.

    Raises:
        ValueError: If an index is outside the set or its answers have no label values.
    """
    for index in (predicted_index, true_index):
        _check_index(index, len(answers))
    guess, truth = answers[predicted_index].values, answers[true_index].values
    if not truth:
        raise ValueError("answers must have at least one label value, got none")
    return sum(abs(a - b) for a, b in zip(guess, truth, strict=True)) / len(truth)


def user_prior(history: Sequence[int], answers: int, smoothing: float = 1.0) -> tuple[float, ...]:
    """Returns the log-probability of each answer from one user's own past answers alone.

    Formula: log((n_a + s) / (n + s A)) for answer a given n_a times among n, with A answers
    and smoothing s (s = 1 is Laplace's rule of succession).

    Args:
        history: Indices of the answers that the user gave so far; may be empty.
        answers: Number of answers in the closed set.
        smoothing: Count that every answer starts with.

    Raises:
        ValueError: If the smoothing is not positive or an index is outside the set.
    """
    if answers < 1:
        raise ValueError(f"answers must be >= 1, got {answers}")
    if not (smoothing > 0 and math.isfinite(smoothing)):
        raise ValueError(f"smoothing must be a number > 0, got {smoothing}")
    for index in history:
        _check_index(index, answers)
    counts = Counter(history)
    total = len(history) + smoothing * answers
    return tuple(math.log((counts[index] + smoothing) / total) for index in range(answers))


def _check_index(index: int, answers: int) -> None:
    if not 0 <= index < answers:
        raise ValueError(f"an answer's index must be 0..{answers - 1}, got {index}")
