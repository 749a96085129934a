"""Weighted logistic regression: optima known by hand, torch's L-BFGS, and zero slopes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fleettune.seeds import Purpose, stream
from strategies.learning.logistic import Floats, Prior, Problem, fit_logistic, probabilities


def vague(coefficients: int, deviation: float = 1e6) -> Prior:
    return Prior(mean=np.zeros(coefficients), deviation=np.full(coefficients, deviation))


def made(seed: int, samples: int, prior: Prior) -> Problem:
    rng = stream(seed, Purpose.COEFFICIENTS)
    coefficients = len(prior.mean)
    x = np.column_stack([np.ones(samples), rng.normal(size=(samples, coefficients - 1))])
    y = (rng.random(samples) < 0.4).astype(np.float64)
    return Problem(x=x, y=y, weights=rng.uniform(0.2, 20, samples), prior=prior)


def by_lbfgs(problem: Problem) -> Floats:
    x, y, weights, mean, deviation = map(
        torch.as_tensor,
        (problem.x, problem.y, problem.weights, problem.prior.mean, problem.prior.deviation),
    )
    found = torch.zeros(len(mean), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [found],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        logits = x @ found
        misfit = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, y, weight=weights, reduction="sum"
        )
        loss = misfit + (((found - mean) / deviation) ** 2).sum() / 2
        loss.backward()  # pyright: ignore[reportUnknownMemberType] - torch's stub
        return float(loss.detach())

    optimizer.step(closure)  # pyright: ignore[reportUnknownMemberType] - torch's stub
    return found.detach().numpy()


@pytest.mark.parametrize("seed", range(5))
def test_newton_finds_what_lbfgs_finds(seed: int) -> None:
    prior = Prior(mean=np.array([0.5, -1.0, 2.0]), deviation=np.array([10.0, 2.5, 0.7]))
    problem = made(seed, 60, prior)
    # L-BFGS stops at gradients of about 1e-7 of a loss in the hundreds
    np.testing.assert_allclose(fit_logistic(problem), by_lbfgs(problem), atol=1e-6)


def test_an_intercept_alone_is_the_log_odds_of_the_weights() -> None:
    problem = Problem(
        x=np.ones((3, 1)),
        y=np.array([1.0, 0.0, 0.0]),
        weights=np.array([6.0, 1.0, 1.0]),
        prior=vague(1),
    )
    # the prior pulls by log(3) / 1e12
    np.testing.assert_allclose(fit_logistic(problem), [math.log(6 / 2)], atol=1e-9)


def test_a_binary_feature_gives_the_log_odds_ratio() -> None:
    # 1 of 4 helped at feature 0, 3 of 4 at feature 1: log odds -log 3, and 2 log 3 more
    x = np.column_stack([np.ones(4), [0.0, 0.0, 1.0, 1.0]])
    problem = Problem(
        x=x,
        y=np.array([1.0, 0.0, 1.0, 0.0]),
        weights=np.array([1.0, 3.0, 3.0, 1.0]),
        prior=vague(2),
    )
    np.testing.assert_allclose(fit_logistic(problem), [-math.log(3), 2 * math.log(3)], atol=1e-9)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.data(), st.integers(1, 12))
def test_the_slope_is_zero_at_the_optimum_even_of_separable_classes(
    data: st.DataObject, samples: int
) -> None:
    x = data.draw(arrays.arrays(np.float64, (samples, 2), elements=st.floats(-5, 5)))
    y = data.draw(arrays.arrays(np.float64, samples, elements=st.sampled_from([0.0, 1.0])))
    weights = data.draw(arrays.arrays(np.float64, samples, elements=st.floats(0, 100)))
    prior = vague(2, deviation=2.5)
    found = fit_logistic(Problem(x=x, y=y, weights=weights, prior=prior))
    slope = x.T @ (weights * (probabilities(x @ found) - y)) + found / 2.5**2
    # the last step is below 1e-10 and the curvature at most 5^2 * 100 * 12 / 4 + 1
    assert np.abs(slope).max() < 1e-5


def test_without_samples_the_prior_stands() -> None:
    prior = Prior(mean=np.array([0.5, -1.0]), deviation=np.array([1.0, 2.0]))
    problem = Problem(x=np.zeros((0, 2)), y=np.zeros(0), weights=np.zeros(0), prior=prior)
    np.testing.assert_array_equal(fit_logistic(problem), prior.mean)


def test_probabilities_neither_overflow_nor_lose_small_ones() -> None:
    np.testing.assert_allclose(
        probabilities(np.array([-800.0, -30.0, 0.0, 800.0])), [0.0, math.exp(-30), 0.5, 1.0]
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": np.zeros(2)}, "as many samples, got 3"),
        ({"y": np.full(3, 0.5)}, "x must be finite and y 0 or 1"),
        ({"weights": np.full(3, -1.0)}, "weights must be >= 0"),
        ({"prior": vague(2)}, "the prior must be of 1 coefficients"),
        ({"prior": vague(1, deviation=0.0)}, "deviations > 0"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(changed: dict[str, object], message: str) -> None:
    parts: dict[str, object] = {
        "x": np.ones((3, 1)),
        "y": np.zeros(3),
        "weights": np.ones(3),
        "prior": vague(1),
    }
    with pytest.raises(ValueError, match=message):
        Problem(**(parts | changed))  # pyright: ignore[reportArgumentType] - bad on purpose
