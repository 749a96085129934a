"""Reported: a device's statistics of a night as what the server learns of its decision.

Only what the device sent is read; an observation has no place here. A night is a decision about a
release if the device was there, its report came in time and it did something about its patch, but
not where the release came back to it: it was counted when it first had that one. A first tune
counts as a retune: it costs what one costs, its rule asks for it with certainty, and without a
patch to compare with its gain is unknown.
"""

from __future__ import annotations

import math

from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.messages.report import BACK, Statistics
from fleettune.releases.guidance import features_of
from strategies.learning.outcomes import RETUNE, REUSE, DecisionReport, Features
from strategies.learning.quantile_sketch import LARGEST

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
    return tuple(features_of(drift, strength, statistics.canary_worse).items())


def _propensity(statistics: Statistics, *, retuned: bool) -> float:
    """The one that the device tells of; a rule that never explores did what it always does."""
    return float(retuned) if statistics.propensity is None else statistics.propensity


def _gain(statistics: Statistics) -> float | None:
    before, after = statistics.canary_before, statistics.canary_after
    return None if before is None or after is None else before - after


def _retuning_j(ledger: Ledger) -> float:
    return sum((ledger.of(stage) for stage in RETUNING), Cost()).energy_j
