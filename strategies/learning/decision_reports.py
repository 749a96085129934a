"""A device's statistics of a night become a report of what it decided about a release.

Only what the device sent is read; an observation is never used. A report holds numbers and short
words only: no text of a user, and no number of the device. So equal reports are interchangeable,
and every sum of reports is over a multiset.

A night is a decision about a release if the device was there, its report came in time and it did
something about its patch. A night in which a recalled release came back is none: it was counted
when the device first had that release. A first tune counts as a retune: it costs what one costs,
its rule asks for it with certainty, and without a patch to compare with its gain is unknown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.messages.report import BACK, Statistics
from fleettune.releases.guidance import features_of
from strategies.learning.quantile_sketch import LARGEST

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


_FIELDS = tuple(field.name for field in fields(DecisionReport))


def sort_reports(reports: list[DecisionReport]) -> list[DecisionReport]:
    """Returns reports in an order of their own values, whatever the order in which they came."""
    return sorted(reports, key=_order)


def _order(report: DecisionReport) -> tuple[object, ...]:
    values = (getattr(report, name) for name in _FIELDS)
    return tuple(-math.inf if value is None else value for value in values)


PRESENT = "present"
"""Attendance of a device whose report the server has in time."""


DECIDED = (RETUNE, REUSE, "never", "infeasible", "failed")
"""What a device can do about a release that is new to it."""


RETUNING = (Stage.SYNTHESISE, Stage.PROBE, Stage.TUNE)
"""Stages of a retune."""


def read_decision(statistics: Statistics) -> DecisionReport | None:
    """Returns the decision that a report tells of; None where it tells of none.

    Raises:
        ValueError: If a number is not finite or out of its range.
    """
    outcome = statistics.outcome
    if outcome.attendance != PRESENT or outcome.decision not in DECIDED or outcome.release < 0:
        return None
    if outcome.reason.startswith(BACK):
        return None
    retuned = outcome.decision == RETUNE
    total = statistics.ledger.total()
    gain = _gain(statistics) if retuned else None
    for name, value in (("drift", statistics.drift), ("gain", gain)):
        if value is not None and not abs(value) <= LARGEST:
            raise ValueError(f"{name} must be within +-{LARGEST:g}, got {value}")
    return DecisionReport(
        release=outcome.release,
        device_class=outcome.profile,
        decision=outcome.decision,
        features=_features(statistics),
        propensity=_propensity(statistics, retuned=retuned),
        explored=retuned and statistics.explored == 1,
        drift=statistics.drift,
        gain=gain,
        energy_j=total.energy_j,
        retune_j=_retuning_j(statistics.ledger) if retuned else 0.0,
        down_bytes=total.down_bytes,
    )


def _features(statistics: Statistics) -> Features:
    """What its rule saw, where it looked at drift; numbers that no score can hold are refused."""
    drift, strength = statistics.drift, statistics.strength
    if drift is None or strength is None:
        return ()
    if not (math.isfinite(drift) and math.isfinite(strength)):
        raise ValueError(f"drift and strength must be finite, got {drift} and {strength}")
    canaries = statistics.canary_worse, statistics.canary_before
    return tuple(features_of(drift, strength, *canaries).items())


def _propensity(statistics: Statistics, *, retuned: bool) -> float:
    """The one that the device tells of; a rule that never explores did what it always does."""
    return float(retuned) if statistics.propensity is None else statistics.propensity


def _gain(statistics: Statistics) -> float | None:
    before, after = statistics.canary_before, statistics.canary_after
    return None if before is None or after is None else before - after


def _retuning_j(ledger: Ledger) -> float:
    return sum((ledger.of(stage) for stage in RETUNING), Cost()).energy_j
