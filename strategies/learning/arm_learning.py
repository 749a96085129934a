"""Learning: what the server gathers of every arm's decisions, and the guidance it makes of it.

Guidance of a release is made once, when the release comes out, and kept: a device that was away
gets what the others got. Every arm learns from its own devices alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fleettune.releases.guidance import Guidance
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.decision_sums import DecisionTotals, read_gathered
from strategies.learning.guidance_rules import (
    Fitted,
    Fixed,
    GuidanceRule,
    ReleaseGuidance,
    Unguided,
    read_guided,
)
from strategies.learning.quantile_sketch import Sketch
from strategies.learning.reuse_statistics import ByClass, Counts, ReuseStatistics, Tally

ALL = "all"
"""Device class of a row that sums over all of them."""
SHARES = (0.05, 0.5, 0.95)
"""Quantiles of the table."""


@dataclass(slots=True, kw_only=True)
class Learning:
    """What was gathered and made of it, arm by arm.

    Attributes:
        guiding: How guidance is made.
        gathered: What an arm's devices decided so far.
        guided: What came with a release, by arm and version.
    """

    guiding: GuidanceRule = field(default_factory=Unguided)
    gathered: dict[str, DecisionTotals] = field(default_factory=dict[str, DecisionTotals])
    guided: dict[tuple[str, int], ReleaseGuidance] = field(
        default_factory=dict[tuple[str, int], ReleaseGuidance]
    )

    @property
    def keeps(self) -> bool:
        """Whether retunes of known gain are kept."""
        return isinstance(self.guiding, Fitted)

    def take(self, arm: str, gathered: DecisionTotals) -> None:
        """Adds what an arm's devices decided in a round."""
        self.gathered[arm] = self.gathered.get(arm, DecisionTotals()) + gathered

    def guidance(self, arm: str, version: int) -> Guidance | None:
        """Returns what comes with a release in an arm; None with the first one, or unguided."""
        if isinstance(self.guiding, Fixed) and version:
            return self.guiding.guidance
        if not isinstance(self.guiding, Fitted) or not version:
            return None
        key = (arm, version)
        if key not in self.guided:
            evidence = self.gathered.get(arm, DecisionTotals()).evidence
            self.guided[key] = self.guiding.guided(evidence, version)
        return self.guided[key].guidance

    def decide(self, arm: str, version: int, cohort: Sequence[DecisionReport]) -> None:
        """Puts what a cohort gained into what everybody else is told of its release."""
        guided = self.guided.get((arm, version))
        if guided is not None and isinstance(self.guiding, Fitted):
            self.guided[arm, version] = self.guiding.decided(guided, cohort)

    def plain(self) -> dict[str, Any]:
        """Returns everything as JSON can hold it."""
        return {
            "gathered": {arm: entry.plain() for arm, entry in self.gathered.items()},
            "guided": [{"arm": arm, **entry.plain()} for (arm, _), entry in self.guided.items()],
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Takes over what `plain` wrote."""
        self.gathered = {arm: read_gathered(entry) for arm, entry in plain["gathered"].items()}
        read = [(entry["arm"], read_guided(entry)) for entry in plain["guided"]]
        self.guided = {(arm, entry.release): entry for arm, entry in read}

    def tally(self, arm: str) -> Tally:
        """Returns what an arm's devices did so far."""
        return self.gathered.get(arm, DecisionTotals()).statistics.tally

    def decision_rows(self) -> list[dict[str, Any]]:
        """Returns one row per arm, release and device class, and one over all classes."""
        return [
            {"arm": arm, **row}
            for arm, entry in self.gathered.items()
            for row in _rows(entry.statistics)
        ]

    def guidance_rows(self) -> list[dict[str, Any]]:
        """Returns one row per arm and release: what came with it, and how that did on it.

        A rule is judged by the retunes of the release that it came with, none of which it was
        fitted to. Until something was fitted, the prior rule is.
        """
        return [
            {"arm": arm, **entry.row(), **self._judgement(arm, entry)}
            for (arm, _), entry in sorted(self.guided.items(), key=lambda item: item[0])
        ]

    def _judgement(self, arm: str, entry: ReleaseGuidance) -> dict[str, Any]:
        if not isinstance(self.guiding, Fitted):
            return {}
        evidence = self.gathered.get(arm, DecisionTotals()).evidence.of(entry.release)
        found = self.guiding.assessed(entry.guidance, evidence)
        return {
            "judged_devices": found.devices,
            "judged_effective": found.effective_devices,
            "auc": found.auc,
            "false_reuse": found.errors.false_reuse,
            "false_retune": found.errors.false_retune,
        }


def _rows(statistics: ReuseStatistics) -> Iterator[dict[str, Any]]:
    tally = statistics.tally
    for version, summed in tally.by_release().items():
        names = [name for (number, name), _ in tally.cells if number == version]
        for name in (ALL, *names):
            counts = summed if name == ALL else tally.of(version, name)
            yield {
                "release": version,
                "device_class": name,
                **_counted(counts),
                **_quantiles("drift", _merged(statistics.drift, version, name)),
                **_quantiles("gain", _merged(statistics.gain, version, name)),
            }


def _merged(sketches: ByClass, version: int, device_class: str) -> Sketch:
    chosen = (
        sketch
        for (number, name), sketch in sketches
        if number == version and device_class in {ALL, name}
    )
    return sum(chosen, Sketch())


def _counted(counts: Counts) -> dict[str, Any]:
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
