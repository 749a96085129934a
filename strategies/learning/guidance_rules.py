"""Guidance of the next release, made from what devices reported of earlier ones.

Source: docs/methods.md#fit-of-the-retune-rule.

A score is fitted to all retunes of known gain so far, for drift over strength hardly differs
between devices of one release. The prior is the rule that devices have without guidance: drift over
strength against a constant. The one decision for everybody rests on the newest release alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fleettune.releases.guidance import CANARY, CANARY_MISSING, FEATURES, LOG_DRIFT, Guidance
from strategies.learning.calibration import (
    CalibratedRule,
    RetuneRule,
    RuleCalibration,
    known_retunes,
    retune_weight,
)
from strategies.learning.decision_reports import RETUNE, REUSE, DecisionReport
from strategies.learning.decision_sums import Evidence
from strategies.learning.rule_accuracy import Assessment, assess


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDecision:
    """What all devices are told to do.

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
class ReleaseDecider:
    """Decides once per release.

    Attributes:
        margin: Nats per token that retuning has to gain on average.
        min_devices: Fewest known gains; with fewer, everybody reuses.
        max_weight: Largest weight of one device, which is one over its propensity to retune.
    """

    margin: float
    min_devices: int = 10
    max_weight: float = 50.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.margin):
            raise ValueError(f"margin must be finite, in nats per token, got {self.margin}")
        if self.min_devices < 1:
            raise ValueError(f"min_devices must be >= 1, got {self.min_devices}")
        if not 1 <= self.max_weight < math.inf:
            raise ValueError(f"max_weight must be finite and >= 1, got {self.max_weight}")

    def decide(self, cohort: Iterable[DecisionReport]) -> ReleaseDecision:
        """Returns the decision from a cohort's reports of one release.

        Raises:
            ValueError: If they are of several releases.
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
        decision, reason = REUSE, "too_few_gains"
        if mean_gain is not None and len(gains) >= self.min_devices:
            helps = mean_gain > self.margin
            decision = RETUNE if helps else REUSE
            reason = "mean_gain_above_margin" if helps else "mean_gain_within_margin"
        return ReleaseDecision(
            decision=decision, reason=reason, devices=len(gains), mean_gain=mean_gain
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """A score as it is; its fields are the log odds of `fleettune.releases.guidance.FEATURES`.

    Attributes:
        intercept: Log odds where all features are 0.
        log_drift: Log odds per decade of drift over strength.
        canary: Log odds per nat per token by which the canaries got worse.
        canary_missing: Log odds where there is none.
        threshold: Probability above which a device retunes, between 0 and 1.
        explore: Share of devices that retune against it, from 0 to 1.

    Raises:
        ValueError: If a value breaks its rule.
    """

    intercept: float
    log_drift: float
    canary: float
    canary_missing: float
    threshold: float
    explore: float = 0.0

    def __post_init__(self) -> None:
        _ = self.guidance

    @property
    def guidance(self) -> Guidance:
        """What comes with a release."""
        weights = {
            LOG_DRIFT: self.log_drift,
            CANARY: self.canary,
            CANARY_MISSING: self.canary_missing,
        }
        return Guidance(
            intercept=self.intercept,
            weights=tuple(weights.items()),
            threshold=self.threshold,
            explore=self.explore,
        )


TOO_FEW = "too_few_gains"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unguided:
    """Releases go out without guidance: devices decide by what they were made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Every release after the first comes with what was fitted from those before.

    Attributes:
        margin: Nats per token that a retune has to gain to count as help.
        false_reuse_cost: Retunes in vain that one wrong reuse is worth.
        explore: Share of devices that retune against their rule, from 0 to 1.
        min_explored: Fewest retunes of known gain that a fit, or a decision for all, needs.
        max_weight: Largest weight of one device, which is one over its propensity to retune.
        prior_kappa: Drift over strength at which the prior rule says one half.
        prior_slope: Its log odds per decade of drift over strength.

    Raises:
        ValueError: If a value breaks its rule.
    """

    margin: float
    false_reuse_cost: float
    explore: float
    min_explored: int
    max_weight: float
    prior_kappa: float
    prior_slope: float

    def __post_init__(self) -> None:
        if not 0 < self.prior_kappa < math.inf:
            raise ValueError(f"prior_kappa must be finite and > 0, got {self.prior_kappa}")
        if not 0 < self.prior_slope < math.inf:
            raise ValueError(
                f"prior_slope must be finite and > 0 log odds per decade, got {self.prior_slope}"
            )
        if not 0 <= self.explore <= 1:
            raise ValueError(f"explore must be a share from 0 to 1, got {self.explore}")
        _ = self.calibration, self.for_everybody

    @property
    def calibration(self) -> RuleCalibration:
        """How scores are fitted."""
        weights = {LOG_DRIFT: self.prior_slope, CANARY: 0.0, CANARY_MISSING: 0.0}
        return RuleCalibration(
            prior=RetuneRule(
                intercept=-self.prior_slope * math.log10(self.prior_kappa),
                weights=tuple((name, weights[name]) for name in FEATURES),
                threshold=1 / (1 + self.false_reuse_cost) if self.false_reuse_cost > 0 else 0.5,
            ),
            margin=self.margin,
            false_reuse_cost=self.false_reuse_cost,
            min_explored=self.min_explored,
            max_weight=self.max_weight,
        )

    @property
    def for_everybody(self) -> ReleaseDecider:
        """How one decision for everybody is made."""
        return ReleaseDecider(
            margin=self.margin, min_devices=self.min_explored, max_weight=self.max_weight
        )

    def guided(self, evidence: Evidence, release: int) -> ReleaseGuidance:
        """Returns what comes with a release, from the evidence of earlier ones.

        Where there is too little to fit, devices go on by what they have, and explore.
        """
        known = [report for report in evidence.judged if report.release < release]
        could_reuse = any(version < release for version in evidence.could_reuse)
        found = self.calibration.fit_known(with_features(known), could_reuse=could_reuse)
        newest = max((report.release for report in known), default=release)
        told = self.for_everybody.decide(one for one in known if one.release == newest)
        rule = found.rule
        return ReleaseGuidance(
            release=release,
            guidance=Guidance(
                decision="" if told.reason == TOO_FEW else told.decision,
                intercept=rule.intercept if found.fitted else None,
                weights=rule.weights if found.fitted else (),
                threshold=rule.threshold,
                explore=self.explore,
            ),
            fit=found,
            told=told,
        )

    def decided(self, guided: ReleaseGuidance, cohort: Sequence[DecisionReport]) -> ReleaseGuidance:
        """Returns guidance with what a cohort of its release gained; as it is if too few did."""
        told = self.for_everybody.decide(cohort)
        if told.reason == TOO_FEW:
            return guided
        return replace(guided, guidance=replace(guided.guidance, decision=told.decision), told=told)

    def assessed(self, guidance: Guidance, evidence: tuple[DecisionReport, ...]) -> Assessment:
        """Returns how the rule that was out with some releases did on their own retunes."""
        rule = self.calibration.prior
        if guidance.intercept is not None:
            rule = RetuneRule(
                intercept=guidance.intercept,
                weights=guidance.weights,
                threshold=guidance.threshold,
            )
        return assess(rule, with_features(evidence), self.margin, self.max_weight)


GuidanceRule = Unguided | Fitted | Fixed
"""What a plan may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseGuidance:
    """What comes with a release in an arm, and what it rests on.

    Attributes:
        release: Version of the release.
        guidance: What devices are told.
        fit: The fit behind the score.
        told: What is behind the decision for everybody.
    """

    release: int
    guidance: Guidance
    fit: CalibratedRule
    told: ReleaseDecision

    def row(self) -> dict[str, Any]:
        """Returns it as one row; coefficients are None where none were shipped."""
        guidance, fit = self.guidance, self.fit
        weights = dict(guidance.weights)
        return {
            "release": self.release,
            "fitted": fit.fitted,
            "devices": fit.devices,
            "explored": fit.explored,
            "effective_devices": fit.effective_devices,
            "intercept": guidance.intercept,
            **{name: weights.get(name) for name in FEATURES},
            "threshold": guidance.threshold,
            "explore": guidance.explore,
            "decision": guidance.decision,
            "decision_reason": self.told.reason,
            "decision_devices": self.told.devices,
            "mean_gain": self.told.mean_gain,
        }

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return asdict(self)


def read_guided(plain: dict[str, Any]) -> ReleaseGuidance:
    """Returns what `ReleaseGuidance.plain` wrote."""
    guidance, fit = _weighted(plain["guidance"]), dict(plain["fit"])
    fit["rule"] = RetuneRule(**_weighted(fit["rule"]))
    return ReleaseGuidance(
        release=plain["release"],
        guidance=Guidance(**guidance),
        fit=CalibratedRule(**fit),
        told=ReleaseDecision(**plain["told"]),
    )


def with_features(
    reports: tuple[DecisionReport, ...] | list[DecisionReport],
) -> list[DecisionReport]:
    """Returns the reports of rules that saw all that a score is made of."""
    return [report for report in reports if set(FEATURES) <= dict(report.features).keys()]


def _weighted(plain: dict[str, Any]) -> dict[str, Any]:
    """Returns fields with the weights among them as they were before JSON held them."""
    weights: list[tuple[str, float]] = plain["weights"]
    return {**plain, "weights": tuple((name, weight) for name, weight in weights)}
