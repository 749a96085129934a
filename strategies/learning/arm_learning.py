"""What the server learned of one arm: its devices' decisions, and the guidance made of them.

Guidance of a release is made once, when the release comes out, and kept: a device that was away
gets what the others got. Every arm learns from its own devices alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fleettune.releases.guidance import FEATURES, Guidance
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.decision_sums import (
    ByClass,
    Counts,
    DecisionTotals,
    ReuseStatistics,
    Tally,
)
from strategies.learning.guidance_rules import Fitted, Fixed, GuidanceRule, ReleaseGuidance
from strategies.learning.quantile_sketch import Sketch

ALL = "all"
"""Device class of a row that sums over all of them."""
SHARES = (0.05, 0.5, 0.95)
"""Quantiles of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLearning:
    """Totals of reported decisions, and the fitted guidance that was shipped with each release.

    Attributes:
        totals: What the arm's devices decided so far.
        guidance: What came with every release after the first, in their order; only where guidance
            is fitted.
    """

    totals: DecisionTotals = field(default_factory=DecisionTotals)
    guidance: tuple[ReleaseGuidance, ...] = ()

    @property
    def tally(self) -> Tally:
        """What the arm's devices did so far."""
        return self.totals.statistics.tally

    def of(self, version: int) -> ReleaseGuidance | None:
        """Returns what came with a release; None where nothing was fitted for it."""
        return next((one for one in self.guidance if one.release == version), None)


def add_totals(learning: ArmLearning, totals: DecisionTotals) -> ArmLearning:
    """Returns the arm with what its devices decided in a round."""
    return replace(learning, totals=learning.totals + totals)


def guide_release(learning: ArmLearning, rule: GuidanceRule, version: int) -> ArmLearning:
    """Returns the arm with guidance of a release, which is made now unless it was made before."""
    if not isinstance(rule, Fitted) or not version or learning.of(version) is not None:
        return learning
    made = rule.guide(learning.totals.evidence, version)
    return replace(learning, guidance=(*learning.guidance, made))


def guidance_of(learning: ArmLearning, rule: GuidanceRule, version: int) -> Guidance | None:
    """Returns what devices are told with a release; None with the first one, or unguided."""
    if isinstance(rule, Fixed) and version:
        return rule.guidance()
    made = learning.of(version)
    return None if made is None else made.guidance


def follow_cohort(
    learning: ArmLearning, rule: GuidanceRule, version: int, cohort: Sequence[DecisionReport]
) -> ArmLearning:
    """Returns the arm with guidance in which a cohort's gains decide for all others.

    Args:
        learning: The arm.
        rule: How guidance is made; only one that is fitted follows cohorts.
        version: The release that the cohort had first.
        cohort: The cohort's reports.
    """
    if not isinstance(rule, Fitted):
        return learning
    made = (
        rule.follow_cohort(one, cohort) if one.release == version else one
        for one in learning.guidance
    )
    return replace(learning, guidance=tuple(made))


def decision_rows(learning: ArmLearning) -> list[dict[str, Any]]:
    """Returns one row per release and device class, and one over all classes."""
    return list(_rows(learning.totals.statistics))


def guidance_rows(learning: ArmLearning, rule: GuidanceRule) -> list[dict[str, Any]]:
    """Returns one row per release: what came with it, and how that did on it.

    A rule is judged by the retunes of the release that it came with, none of which it was fitted
    to. Until something was fitted, the prior rule is. Coefficients that were not shipped are None.
    """
    if not isinstance(rule, Fitted):
        return []
    rows: list[dict[str, Any]] = []
    for made in sorted(learning.guidance, key=lambda one: one.release):
        found = rule.assess(made.guidance, learning.totals.evidence.of(made.release))
        weights = dict(made.guidance.weights)
        row = {
            "release": made.release,
            "fitted": made.fit.fitted,
            "devices": made.fit.devices,
            "explored": made.fit.explored,
            "effective_devices": made.fit.effective_devices,
            "intercept": made.guidance.intercept,
            **{name: weights.get(name) for name in FEATURES},
            "threshold": made.guidance.threshold,
            "explore": made.guidance.explore,
            "decision": made.guidance.decision,
            "decision_reason": made.for_everybody.reason,
            "decision_devices": made.for_everybody.devices,
            "mean_gain": made.for_everybody.mean_gain,
            "judged_devices": found.devices,
            "judged_effective": found.effective_devices,
            "auc": found.auc,
            "false_reuse": found.errors.false_reuse,
            "false_retune": found.errors.false_retune,
        }
        rows.append(row)
    return rows


def _rows(statistics: ReuseStatistics) -> Iterator[dict[str, Any]]:
    tally = statistics.tally
    for version, summed in tally.by_release().items():
        names = [name for (number, name), _ in tally.cells if number == version]
        for name in (ALL, *names):
            counts = summed if name == ALL else tally.of(version, name)
            yield {
                "release": version,
                "device_class": name,
                **_count_columns(counts),
                **_quantiles("drift", _sum_sketches(statistics.drift, version, name)),
                **_quantiles("gain", _sum_sketches(statistics.gain, version, name)),
            }


def _sum_sketches(sketches: ByClass, version: int, device_class: str) -> Sketch:
    chosen = (
        sketch
        for (number, name), sketch in sketches
        if number == version and device_class in {ALL, name}
    )
    return sum(chosen, Sketch())


def _count_columns(counts: Counts) -> dict[str, Any]:
    named = asdict(counts)
    del named["retune_uj"], named["energy_uj"]
    return {
        **named,
        "reuse_rate": counts.reuse_rate,
        "retune_rate": counts.retune_rate,
        "retune_j": counts.retune_j,
        "joules_per_retune": counts.joules_per_retune,
        "energy_j": counts.energy_j,
    }


def _quantiles(of: str, sketch: Sketch) -> dict[str, Any]:
    """Returns how many numbers a sketch holds, and their quantiles; None of no numbers."""
    known = {
        f"{of}_q{round(100 * share):02d}": sketch.quantile(share) if sketch.count else None
        for share in SHARES
    }
    return {f"{of}_count": sketch.count, **known}
