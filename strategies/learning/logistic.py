"""Weighted logistic regression with a Gaussian prior, by Newton's method.

The penalised negative log-likelihood ``sum w (log(1 + e^eta) - y eta) + sum ((b - m) / s)^2 / 2``
with ``eta = x b`` is strictly convex, so there is one optimum even where the classes are separable,
and Newton's steps (iteratively reweighted least squares), halved until they go down, find it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS = 100
TOLERANCE = 1e-10
"""Largest change of a coefficient that counts as none."""
SMALLEST = 2.0**-40
"""Share of a step below which the loss no longer tells better from worse."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prior:
    """Independent normal distributions of the coefficients.

    Attributes:
        mean: Their means [coefficients].
        deviation: Their standard deviations [coefficients], above 0.
    """

    mean: Floats
    deviation: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Samples and a prior.

    Attributes:
        x: One row per sample [samples, coefficients], a column of ones for an intercept.
        y: 1 or 0 per sample [samples].
        weights: How many samples each stands for [samples], 0 or more.
        prior: What is believed without samples.
    """

    x: Floats
    y: Floats
    weights: Floats
    prior: Prior

    def __post_init__(self) -> None:
        samples, coefficients = self.x.shape
        if self.y.shape != (samples,) or self.weights.shape != (samples,):
            raise ValueError(
                f"x, y and weights must have as many samples, got {samples}, {self.y.shape} and "
                f"{self.weights.shape}"
            )
        if self.prior.mean.shape != (coefficients,) or self.prior.deviation.shape != (
            coefficients,
        ):
            raise ValueError(f"the prior must be of {coefficients} coefficients, as x is")
        if not (np.isfinite(self.x).all() and np.isin(self.y, (0.0, 1.0)).all()):
            raise ValueError("x must be finite and y 0 or 1")
        if not ((self.weights >= 0).all() and (self.prior.deviation > 0).all()):
            raise ValueError("weights must be >= 0 and the prior's deviations > 0")

    def loss(self, coefficients: Floats) -> float:
        """Returns the penalised negative log-likelihood in nats."""
        logits = self.x @ coefficients
        misfit = self.weights @ (np.logaddexp(0.0, logits) - self.y * logits)
        pull = (coefficients - self.prior.mean) / self.prior.deviation
        return float(misfit + pull @ pull / 2)

    def newton_step(self, coefficients: Floats) -> Floats:
        """Returns what Newton's method takes off the coefficients: curvature^-1 slope."""
        chance = probabilities(self.x @ coefficients)
        precision = self.prior.deviation**-2.0
        slope = self.x.T @ (self.weights * (chance - self.y))
        slope += (coefficients - self.prior.mean) * precision
        curvature = (self.x.T * (self.weights * chance * (1 - chance))) @ self.x
        return np.linalg.solve(curvature + np.diag(precision), slope).astype(np.float64)


def fit_logistic(problem: Problem) -> Floats:
    """Returns the coefficients [coefficients] of the highest posterior density.

    Raises:
        ArithmeticError: If Newton's method does not settle.
    """
    found = problem.prior.mean.astype(np.float64)
    for _ in range(STEPS):
        step = problem.newton_step(found)
        before, size = problem.loss(found), 1.0
        while size > SMALLEST and problem.loss(found - size * step) > before:
            size /= 2
        found = found - size * step
        if float(np.abs(size * step).max()) <= TOLERANCE:
            return found
    raise ArithmeticError(f"logistic regression did not settle within {STEPS} Newton steps")


def probabilities(logits: Floats) -> Floats:
    """Returns ``1 / (1 + e^-x)`` of every logit, without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
