"""Fixed: every release after the first comes with a score that was learnt elsewhere.

Learnt from other fleets (`python -m simulations.assets.fixed_guidance`) and used without change: nothing that
these devices report alters it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleettune.releases.guidance import CANARY, CANARY_MISSING, LOG_DRIFT, Guidance


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
