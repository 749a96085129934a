"""Guidance of the next release, made from what devices reported of earlier ones.

Source: docs/methods.md#fit-of-the-retune-rule.

A score is fitted to all retunes of known gain so far, for drift over strength hardly differs
between devices of one release. The prior is the rule that devices have without guidance: drift over
strength against a constant. The one decision for everybody rests on the newest release alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fleettune.releases.guidance import (
    CANARY,
    CANARY_LEVEL,
    CANARY_MISSING,
    FEATURES,
    LOG_DRIFT,
    Guidance,
)
from strategies.learning.calibration import (
    TOO_FEW,
    CalibratedRule,
    ReleaseDecision,
    RetuneRule,
    RuleCalibration,
)
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.decision_sums import Evidence
from strategies.learning.rule_accuracy import Assessment, assess


@dataclass(frozen=True, slots=True, kw_only=True)
class Unguided:
    """Releases go out without guidance: devices decide by what they were made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """A score as it is; its fields are the log odds of `fleettune.releases.guidance.FEATURES`.

    Attributes:
        intercept: Log odds where all features are 0.
        log_drift: Log odds per decade of drift over strength.
        canary: Log odds per nat per token by which the canaries got worse.
        canary_level: Log odds per nat per token that they take under the new release.
        canary_missing: Log odds where there is none.
        threshold: Probability above which a device retunes, between 0 and 1.
        explore: Share of devices that retune against it, from 0 to 1.

    Raises:
        ValueError: If a value breaks its rule.
    """

    intercept: float
    log_drift: float
    canary: float
    canary_level: float
    canary_missing: float
    threshold: float
    explore: float = 0.0

    def __post_init__(self) -> None:
        self.guidance()

    def guidance(self) -> Guidance:
        """Returns what comes with a release."""
        weights = {
            LOG_DRIFT: self.log_drift,
            CANARY: self.canary,
            CANARY_LEVEL: self.canary_level,
            CANARY_MISSING: self.canary_missing,
        }
        return Guidance(
            intercept=self.intercept,
            weights=tuple(weights.items()),
            threshold=self.threshold,
            explore=self.explore,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseGuidance:
    """What comes with a release in an arm, and what it rests on.

    Attributes:
        release: Version of the release.
        guidance: What devices are told.
        fit: The fit behind the score.
        for_everybody: The decision for everybody.
    """

    release: int
    guidance: Guidance
    fit: CalibratedRule
    for_everybody: ReleaseDecision


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
        self.calibration()

    def calibration(self) -> RuleCalibration:
        """Returns how scores are fitted, and how one decision for everybody is made."""
        weights = dict.fromkeys(FEATURES, 0.0) | {LOG_DRIFT: self.prior_slope}
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

    def guide(self, evidence: Evidence, release: int) -> ReleaseGuidance:
        """Returns what comes with a release, from the evidence of earlier ones.

        Where there is too little to fit, devices go on by what they have, and explore.
        """
        known = [report for report in evidence.retunes if report.release < release]
        could_reuse = any(version < release for version in evidence.could_reuse)
        found = self.calibration().fit_known(with_features(known), could_reuse=could_reuse)
        newest = max((report.release for report in known), default=release)
        everybody = self.calibration().decide_release(one for one in known if one.release == newest)
        return ReleaseGuidance(
            release=release,
            guidance=Guidance(
                decision="" if everybody.reason == TOO_FEW else everybody.decision,
                intercept=found.rule.intercept if found.fitted else None,
                weights=found.rule.weights if found.fitted else (),
                threshold=found.rule.threshold,
                explore=self.explore,
            ),
            fit=found,
            for_everybody=everybody,
        )

    def follow_cohort(
        self, told: ReleaseGuidance, cohort: Sequence[DecisionReport]
    ) -> ReleaseGuidance:
        """Returns guidance with what a cohort of its release gained; as it is if too few did."""
        everybody = self.calibration().decide_release(cohort)
        if everybody.reason == TOO_FEW:
            return told
        guidance = replace(told.guidance, decision=everybody.decision)
        return replace(told, guidance=guidance, for_everybody=everybody)

    def assess(self, guidance: Guidance, retunes: tuple[DecisionReport, ...]) -> Assessment:
        """Returns how the rule that was out with some releases did on their own retunes."""
        rule = self.calibration().prior
        if guidance.intercept is not None:
            rule = RetuneRule(
                intercept=guidance.intercept,
                weights=guidance.weights,
                threshold=guidance.threshold,
            )
        return assess(rule, with_features(retunes), self.margin, self.max_weight)


GuidanceRule = Unguided | Fitted | Fixed
"""What a plan may name."""


def with_features(reports: Iterable[DecisionReport]) -> list[DecisionReport]:
    """Returns the reports of rules that saw all that a score is made of."""
    return [report for report in reports if set(FEATURES) <= dict(report.features).keys()]
