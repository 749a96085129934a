"""What a device's decision about a release came to, as the server learns it.

A report holds numbers and short words only: no text of a user, and no number of the device, so
equal reports are interchangeable and every sum below is over a multiset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

RETUNE = "retune"
REUSE = "reuse"

Features = tuple[tuple[str, float], ...]
"""What a rule saw, as (name, value), in order of names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionReport:
    """One device's decision about one release.

    Attributes:
        release: Version of the release.
        device_class: What the fleet is stratified by: the hardware profile, or any word that the
            server knows of every device beforehand, for example profile and release held.
        decision: What it did: `RETUNE`, `REUSE`, or another word where it could do neither.
        features: What its rule saw, by name; sorted by name whatever the order given.
        propensity: Probability with which it would retune, given what it saw; 1 where the rule asks
            for it, the share of random retunes where the rule asks for reuse.
        explored: True if it retuned at random, against its rule.
        drift: Drift that it looked at, 0 or more; None where it did not look.
        gain: Nats per token that retuning gained on the canary exchanges, before less after; None
            where that was not seen.
        energy_j: Joules that taking over the release cost the device, all stages (simulated).
        retune_j: The part of them that went into retuning (simulated).
        down_bytes: Bytes received for the release.
    """

    release: int
    device_class: str
    decision: str
    features: Features = ()
    propensity: float = 1.0
    explored: bool = False
    drift: float | None = None
    gain: float | None = None
    energy_j: float = 0.0
    retune_j: float = 0.0
    down_bytes: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(sorted(self.features)))
        names = [name for name, _ in self.features]
        if len(set(names)) < len(names):
            raise ValueError(f"features must have a name each of their own, got {names}")
        self._check_numbers()
        if not 0 <= self.propensity <= 1:
            raise ValueError(f"propensity must be from 0 to 1, got {self.propensity}")
        if self.retuned and self.propensity == 0:
            raise ValueError("propensity of a device that retuned must be > 0, got 0")
        if self.explored and not self.retuned:
            raise ValueError(f"explored means a random retune, but the decision is {self.decision}")

    def _check_numbers(self) -> None:
        for name, value in self.features:
            if not math.isfinite(value):
                raise ValueError(f"feature {name} must be finite, got {value}")
        if self.gain is not None and not math.isfinite(self.gain):
            raise ValueError(f"gain must be finite, in nats per token, got {self.gain}")
        if self.drift is not None and not 0 <= self.drift < math.inf:
            raise ValueError(f"drift must be finite and >= 0, got {self.drift}")
        amounts = (("energy_j", "J"), ("retune_j", "J"), ("down_bytes", "bytes"))
        for name, unit in amounts:
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0 {unit}, got {value}")
        if self.retune_j > self.energy_j:
            raise ValueError(
                f"retune_j must be <= energy_j, {self.energy_j} J, got {self.retune_j} J"
            )

    @property
    def retuned(self) -> bool:
        """Whether the device retuned."""
        return self.decision == RETUNE

    @property
    def reused(self) -> bool:
        """Whether it kept its patch as it was."""
        return self.decision == REUSE

    def feature(self, name: str) -> float:
        """Returns a feature.

        Raises:
            ValueError: If the report has none of that name.
        """
        for known, value in self.features:
            if known == name:
                return value
        raise ValueError(f"a report must have the feature {name}, got {self.features}")


def sort_reports(reports: list[DecisionReport]) -> list[DecisionReport]:
    """Returns reports in an order of their own values, whatever the order in which they came."""
    return sorted(reports, key=_key)


def _key(report: DecisionReport) -> tuple[object, ...]:
    return (
        report.release,
        report.device_class,
        report.decision,
        report.features,
        report.propensity,
        report.explored,
        -math.inf if report.drift is None else report.drift,
        -math.inf if report.gain is None else report.gain,
        report.energy_j,
        report.retune_j,
        report.down_bytes,
    )
