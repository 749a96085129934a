"""Calibration: from reported retunes to the rule that the next manifest ships.

Source: docs/methods.md#fit-of-the-retune-rule.

Wanted is the probability that retuning gains more than a margin, given what a device sees. Gains
are known only of devices that retuned, most of them because their rule asked for it. A small share
retunes at random, and every retune is weighted by one over its propensity, so that the sample
stands for all devices that decided (Horvitz and Thompson 1952). Weights are cut at `max_weight`:
a bound on what one device may decide, paid for with bias where propensities are smaller.
Selection by the fitted features alone would not bias the coefficients; it biases them where a rule
saw more than is fitted or the model is wrong, and it always biases error rates.

The fit is a logistic regression with a Gaussian prior around the rule that is out. It works on
standardised features, with weights scaled to sum to Kish's effective number of devices, so that the
prior counts as much as it should beside few effective devices.

The threshold follows from what mistakes cost. At probability p of help, reuse is expected to cost
``false_reuse_cost * p`` and a retune ``1 - p``, in retunes in vain; so a retune is the cheaper
choice where ``p > 1 / (1 + false_reuse_cost)``. It is a property of the costs, not of the sample:
a threshold searched on the sample would hang on the few devices with large weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from strategies.learning.decision_reports import (
    RETUNE,
    REUSE,
    DecisionReport,
    Features,
    sort_reports,
)
from strategies.learning.logistic import Floats, Prior, Problem, fit_logistic, probabilities


def effective_size(weights: Iterable[float]) -> float:
    """Returns how many equal weights say as much: ``(sum w)^2 / sum w^2`` (Kish 1965)."""
    every = list(weights)
    squares = math.fsum(weight * weight for weight in every)
    return math.fsum(every) ** 2 / squares if squares else 0.0


SLOPE_DEVIATION = 2.5
"""Of a coefficient per standard deviation of its feature, around the prior rule's own."""
INTERCEPT_DEVIATION = 10.0
"""Of the intercept at the features' means: next to no prior."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetuneRule:
    """Retune iff ``1 / (1 + exp(-(intercept + sum weight * feature)))`` is above the threshold.

    Attributes:
        intercept: Log odds where all features are 0.
        weights: Log odds per unit of a feature, by its name.
        threshold: Probability above which a device retunes, between 0 and 1.
    """

    intercept: float
    weights: Features
    threshold: float

    def __post_init__(self) -> None:
        if not all(
            math.isfinite(value) for value in (self.intercept, *dict(self.weights).values())
        ):
            raise ValueError(f"coefficients must be finite, got {self.intercept}, {self.weights}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be > 0 and < 1, got {self.threshold}")

    def probability(self, report: DecisionReport) -> float:
        """Returns the probability that retuning helps, given a report's features."""
        terms = (weight * report.feature(name) for name, weight in self.weights)
        return float(probabilities(np.array(math.fsum((self.intercept, *terms)))))


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedRule:
    """A rule with what it was made from.

    Attributes:
        rule: To be shipped.
        fitted: False where there was too little to fit, and the rule is the prior one.
        devices: Retunes with a known gain.
        explored: Those of them that could as well have been a reuse.
        effective_devices: Kish's effective number of devices after weighting.
    """

    rule: RetuneRule
    fitted: bool
    devices: int
    explored: int
    effective_devices: float


TOO_FEW = "too_few_gains"
"""Why there is no decision for everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDecision:
    """One decision for everybody about a release.

    Attributes:
        decision: `RETUNE` or `REUSE`.
        reason: Why, as a lower-case word with underscores.
        devices: Retunes with a known gain that it rests on.
        mean_gain: Their weighted mean gain in nats per token; None without any.
    """

    decision: str
    reason: str
    devices: int
    mean_gain: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCalibration:
    """How rules are fitted, and how one decision for everybody is made.

    Attributes:
        prior: The rule that is out; its features are those that are fitted.
        margin: Nats per token that a retune has to gain to count as help.
        false_reuse_cost: Retunes in vain that one wrong reuse is worth.
        min_explored: Fewest retunes with a propensity below 1 that a fit needs; fewest retunes of
            any kind where no device could reuse, and of a decision for everybody.
        max_weight: Largest weight of one device.
    """

    prior: RetuneRule
    margin: float
    false_reuse_cost: float = 1.0
    min_explored: int = 10
    max_weight: float = 50.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.margin):
            raise ValueError(f"margin must be finite, in nats per token, got {self.margin}")
        if not 0 < self.false_reuse_cost < math.inf:
            raise ValueError(
                f"false_reuse_cost must be finite and > 0, got {self.false_reuse_cost}"
            )
        if self.min_explored < 1:
            raise ValueError(f"min_explored must be >= 1 device, got {self.min_explored}")
        if not 1 <= self.max_weight < math.inf:
            raise ValueError(f"max_weight must be finite and >= 1, got {self.max_weight}")

    @property
    def threshold(self) -> float:
        """Probability of help above which a retune is the cheaper mistake."""
        return 1 / (1 + self.false_reuse_cost)

    def fit(self, reports: Iterable[DecisionReport]) -> CalibratedRule:
        """Returns the rule that the reports ask for, or the prior one where they are too few.

        Raises:
            ValueError: If a retune with a known gain lacks one of the features.
        """
        decided = [report for report in reports if report.retuned or report.reused]
        could_reuse = any(report.propensity < 1 for report in decided)
        return self.fit_known(decided, could_reuse=could_reuse)

    def fit_known(self, reports: Iterable[DecisionReport], *, could_reuse: bool) -> CalibratedRule:
        """Returns the rule that retunes of known gain ask for; other reports are left out.

        Args:
            reports: What devices reported.
            could_reuse: Whether any device could have reused, of those left out too.

        Raises:
            ValueError: If a retune with a known gain lacks one of the features.
        """
        known = known_retunes(reports)
        explored = sum(report.propensity < 1 for report in known)
        fitted = (explored if could_reuse else len(known)) >= self.min_explored
        weights = [retune_weight(report, self.max_weight) for report in known]
        return CalibratedRule(
            rule=self._fit(known, weights) if fitted else self.prior,
            fitted=fitted,
            devices=len(known),
            explored=explored,
            effective_devices=effective_size(weights),
        )

    def decide_release(self, cohort: Iterable[DecisionReport]) -> ReleaseDecision:
        """Returns whether everybody retunes: iff that gained a cohort more than the margin.

        The mean gain is weighted. With too few known gains everybody reuses. It is the rival of
        deciding on each device: if it does as well, the devices need not decide.

        Raises:
            ValueError: If the reports are of several releases.
        """
        reports = list(cohort)
        releases = sorted({report.release for report in reports})
        if len(releases) > 1:
            raise ValueError(f"a cohort must report one release, got {releases}")
        gains = [
            (retune_weight(one, self.max_weight), one.gain or 0.0) for one in known_retunes(reports)
        ]
        mean_gain = None
        if gains:
            total = math.fsum(weight for weight, _ in gains)
            mean_gain = math.fsum(weight * gain for weight, gain in gains) / total
        decision, reason = REUSE, TOO_FEW
        if mean_gain is not None and len(gains) >= self.min_explored:
            above = mean_gain > self.margin
            decision = RETUNE if above else REUSE
            reason = "mean_gain_above_margin" if above else "mean_gain_within_margin"
        return ReleaseDecision(
            decision=decision, reason=reason, devices=len(gains), mean_gain=mean_gain
        )

    def _fit(self, known: list[DecisionReport], weights: list[float]) -> RetuneRule:
        names = [name for name, _ in self.prior.weights]
        rows = [[report.feature(name) for name in names] for report in known]
        features = np.array(rows, dtype=np.float64).reshape(len(known), len(names))
        scaled = np.array(weights) * (effective_size(weights) / math.fsum(weights))
        mean, deviation = _moments(features, scaled)
        before = np.array([weight for _, weight in self.prior.weights], dtype=np.float64)
        prior = Prior(
            mean=np.array([self.prior.intercept + before @ mean, *(before * deviation)]),
            deviation=np.array([INTERCEPT_DEVIATION, *[SLOPE_DEVIATION] * len(names)]),
        )
        x = np.column_stack([np.ones(len(known)), (features - mean) / deviation])
        helped = np.array([helps(report, self.margin) for report in known], dtype=np.float64)
        found = fit_logistic(Problem(x=x, y=helped, weights=scaled, prior=prior))
        slopes = found[1:] / deviation
        return RetuneRule(
            intercept=float(found[0] - slopes @ mean),
            weights=tuple(zip(names, map(float, slopes), strict=True)),
            threshold=self.threshold,
        )


def _moments(features: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted mean and deviation per feature; 1 for a feature that does not vary.

    Drift is the same for all devices of a release that hold the same patch release; its coefficient
    then stays that of the prior instead of following rounding errors.
    """
    share = weights / weights.sum()
    mean = share @ features
    deviation = np.sqrt(share @ (features - mean) ** 2)
    return mean, np.where(deviation > 1e-9 * (1 + np.abs(mean)), deviation, 1.0)


def known_retunes(reports: Iterable[DecisionReport]) -> list[DecisionReport]:
    """Returns the retunes whose gain is known, releases ascending, in an order of their values."""
    return sort_reports(
        [report for report in reports if report.retuned and report.gain is not None]
    )


def helps(report: DecisionReport, margin: float) -> bool:
    """Whether a retune gained more than a margin, in nats per token."""
    return report.gain is not None and report.gain > margin


def retune_weight(report: DecisionReport, max_weight: float) -> float:
    """Returns how many devices a retune stands for: one over its propensity, cut."""
    return min(1 / report.propensity, max_weight)
