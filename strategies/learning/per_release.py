"""One decision for everybody: retune on a release iff that helped a first cohort on average.

The rival of deciding on each device: if it does as well, the devices need not decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from strategies.learning.calibration import known_retunes, retune_weight
from strategies.learning.outcomes import RETUNE, REUSE, DecisionReport


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
