"""Guidance: what the server tells all devices about reuse and retune with a release.

It travels with the release's manifest (docs/methods.md#edgetune-ours). One decision for everybody,
or a logistic score of "retuning would help" fitted from what devices reported, and the share of
devices that retune at random so that the next fit sees more than those that the rule chose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LOG_DRIFT, CANARY, CANARY_LEVEL = "log_drift", "canary", "canary_level"
CANARY_MISSING = "canary_missing"
FEATURES = (LOG_DRIFT, CANARY, CANARY_LEVEL, CANARY_MISSING)
"""What a device can put into the score: log10 of drift over strength in the rule's scope; nats per
token by which its canaries got worse, and those that they take now, with the old patch under the
new release, 0 where it has none; 1 where it has none, else 0."""
LARGEST_LOG = 12.0
"""Bound of |log10 of drift over strength|, so that an untrained patch has a number too."""
DECISIONS = ("", "reuse", "retune")


def log_ratio(drift: float, strength: float) -> float:
    """Returns log10 of drift over strength, bounded."""
    if drift <= 0:
        return -LARGEST_LOG
    if strength <= 0:
        return LARGEST_LOG
    log = math.log10(drift) - math.log10(strength)
    return min(max(log, -LARGEST_LOG), LARGEST_LOG)


def features_of(
    drift: float, strength: float, worse: float | None, level: float | None
) -> dict[str, float]:
    """Returns `FEATURES`, the same on the device that scores and on the server that fits.

    Args:
        drift: Drift of the release in the rule's scope.
        strength: Strength of the patch there.
        worse: Nats per token by which the canaries got worse; None without any.
        level: Nats per token that they take under the new release; None without any.
    """
    return {
        LOG_DRIFT: log_ratio(drift, strength),
        CANARY: worse or 0.0,
        CANARY_LEVEL: level or 0.0,
        CANARY_MISSING: float(worse is None),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """What comes with a release.

    Attributes:
        decision: ``reuse`` or ``retune`` for everybody; empty: each device decides.
        intercept: Of the logistic score; None: nothing was fitted yet.
        weights: Of the score, by feature.
        threshold: Probability above which a device retunes, between 0 and 1.
        explore: Share of devices that retune whatever the rule says, from 0 to 1.

    Raises:
        ValueError: If a value breaks its rule or a feature is unknown or named twice.
    """

    decision: str = ""
    intercept: float | None = None
    weights: tuple[tuple[str, float], ...] = ()
    threshold: float = 0.5
    explore: float = 0.0

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise ValueError(f"guidance.decision must be in {DECISIONS}, got {self.decision!r}")
        names = [name for name, _ in self.weights]
        if len(set(names)) < len(names) or not set(names) <= set(FEATURES):
            raise ValueError(f"guidance.weights must name each of {FEATURES} once, got {names}")
        numbers = [self.intercept or 0.0, *(weight for _, weight in self.weights)]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"guidance must hold finite coefficients, got {numbers}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"guidance.threshold must be > 0 and < 1, got {self.threshold}")
        if not 0 <= self.explore <= 1:
            raise ValueError(f"guidance.explore must be a share from 0 to 1, got {self.explore}")

    def logit(self, features: Mapping[str, float]) -> float:
        """Returns the log-odds that retuning helps a device with these features.

        Raises:
            ValueError: If nothing was fitted.
        """
        if self.intercept is None:
            raise ValueError("guidance without an intercept holds no score")
        return self.intercept + math.fsum(weight * features[name] for name, weight in self.weights)

    def probability(self, features: Mapping[str, float]) -> float:
        """Returns the probability that retuning helps a device with these features."""
        logit = self.logit(features)
        if logit < 0:
            return math.exp(logit) / (1 + math.exp(logit))
        return 1 / (1 + math.exp(-logit))
