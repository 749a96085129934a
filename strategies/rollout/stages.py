"""Stages: a first cohort gets a release, a forecast is made of it, then everybody does or not.

On the first night of a release a random cohort gets it, the others stay with the release before.
From the second night on the server decides by `strategies.rollout.settings`, once a night and for
every arm by itself: what is released goes to everybody; what is held goes to a cohort of twice the
size.

A release that `strategies.rollout.settings` rolls back is withheld: those that have it keep it,
nobody else gets it, and the next release replaces it everywhere. With `recalls` those that have it
are told of the release before, which they download again, for a device keeps one release only. A
patch of it is loaded where the device kept that, else the device decides anew
(`clients.decision.recalled_release`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fleettune.seeds import Purpose, stream
from strategies.learning.decision_reports import DecisionReport, sort_reports
from strategies.learning.decision_sums import read_report
from strategies.learning.reuse_statistics import Tally
from strategies.rollout.forecast import (
    FEWEST_DEVICES,
    QUANTITIES,
    DeviceClass,
    Fleet,
    FleetOutcome,
    Forecast,
    forecast,
    forecast_rows,
    typical_retune_j,
)
from strategies.rollout.intervals import Interval
from strategies.rollout.settings import (
    RolloutAction,
    RolloutDecision,
    Staged,
    Staging,
    Unstaged,
    cohort_size,
)

UNKNOWN_J = 1.0
"""Stands for a retune's joules where nobody ever retuned: the cohort's own then count alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRelease:
    """A release that not everybody has.

    Attributes:
        version: Its version.
        size: Devices of its cohort, so far.
        withheld: True if no other device will get it.
    """

    version: int
    size: int
    withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRelease:
    """A night's decision about a release.

    Attributes:
        version: The release.
        round: The night, 0-based.
        decision: What happens.
        forecast: What it rests on; None where too few devices reported.
    """

    version: int
    round: int
    decision: RolloutDecision
    forecast: Forecast | None


@dataclass(slots=True, kw_only=True)
class ArmRollout:
    """One arm's releases on their way to everybody.

    Attributes:
        base: Version that everybody may have.
        stages: Later ones that only cohorts have, oldest first.
        cohort: Reports of the newest stage.
        judged: Every night's decision so far.
        released: Versions that went on from a cohort to everybody.
        settled: Reports of the cohort whose release went on to everybody tonight; else none.
    """

    base: int = 0
    stages: list[StagedRelease] = field(default_factory=list[StagedRelease])
    cohort: list[DecisionReport] = field(default_factory=list[DecisionReport])
    judged: list[JudgedRelease] = field(default_factory=list[JudgedRelease])
    released: list[int] = field(default_factory=list[int])
    settled: tuple[DecisionReport, ...] = ()

    def take(self, reports: Iterable[DecisionReport]) -> None:
        """Keeps the reports of the newest stage."""
        if self.stages:
            version = self.stages[-1].version
            self.cohort += [report for report in reports if report.release == version]

    def step(self, staged: Staged, devices: int, night: tuple[int, int], tally: Tally) -> None:
        """Begins a release's stage, or decides about it.

        Args:
            staged: The rule.
            devices: Registered devices.
            night: Version that is out, and the round.
            tally: What the arm's devices did so far.
        """
        version, round_number = night
        self.settled = ()
        known = max([self.base, *(stage.version for stage in self.stages)])
        if version > known:
            size = cohort_size(devices, staged.share, min(staged.least, devices))
            self.stages.append(StagedRelease(version=version, size=size))
            self.cohort.clear()
        elif self.stages and not self.stages[-1].withheld:
            self._decide(staged, devices, round_number, tally)

    def told(self, members: Mapping[int, frozenset[int]], node: int) -> int:
        """Returns the version that a device is told of.

        Args:
            members: Nodes of every stage's cohort, by version.
            node: The device.
        """
        own = (one.version for one in reversed(self.stages) if node in members[one.version])
        return next(own, self.base)

    def _decide(self, staged: Staged, devices: int, round_number: int, tally: Tally) -> None:
        stage = self.stages[-1]
        found = forecast_cohort(self.cohort, tally)
        decision = RolloutDecision(action=RolloutAction.HOLD, reasons=("too_few_reports",))
        if found is not None:
            decision = staged.rule.decide(found)
        self.judged.append(
            JudgedRelease(
                version=stage.version, round=round_number, decision=decision, forecast=found
            )
        )
        if decision.action is RolloutAction.RELEASE or stage.size == devices:
            self.base = stage.version
            self.released.append(stage.version)
            self.settled = tuple(sort_reports(self.cohort))
            self.stages.clear()
            self.cohort.clear()
        elif decision.action is RolloutAction.HOLD:
            self.stages[-1] = replace(stage, size=min(2 * stage.size, devices))
        else:
            # a recalled release stays known, with nobody in its cohort
            size = 0 if staged.recalls else stage.size
            self.stages[-1] = replace(stage, size=size, withheld=True)

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return {
            "base": self.base,
            "stages": [asdict(stage) for stage in self.stages],
            "cohort": [asdict(report) for report in sort_reports(self.cohort)],
            "judged": [asdict(entry) for entry in self.judged],
            "released": self.released,
        }

    def rows(self, tally: Tally) -> list[dict[str, Any]]:
        """Returns a row per forecast quantity, the outcome beside it where everybody got it."""
        rows: list[dict[str, Any]] = []
        for entry in self.judged:
            counts = tally.of(release=entry.version)
            head: dict[str, Any] = {
                "release": entry.version,
                "round": entry.round,
                "action": entry.decision.action.value,
                "reasons": " ".join(entry.decision.reasons),
                "outcome_devices": counts.devices,
            }
            if entry.forecast is None:
                rows.append(head)
                continue
            outcome = FleetOutcome(
                devices=counts.devices,
                retune_rate=counts.retune_rate or 0.0,
                energy_j=counts.energy_j,
                down_bytes=float(counts.down_bytes),
            )
            known = {"devices": entry.forecast.devices, "sampled": entry.forecast.sampled}
            everybody = entry.version in self.released
            hidden = {} if everybody else {"outcome": None, "covered": None}
            rows += [
                {**head, **known, **one, **hidden} for one in forecast_rows(entry.forecast, outcome)
            ]
        return rows


def read_arm_rollout(plain: Mapping[str, Any]) -> ArmRollout:
    """Returns what `ArmRollout.plain` wrote."""
    return ArmRollout(
        base=plain["base"],
        stages=[StagedRelease(**stage) for stage in plain["stages"]],
        cohort=[read_report(report) for report in plain["cohort"]],
        judged=[_judged(entry) for entry in plain["judged"]],
        released=list(plain["released"]),
    )


def cohort_of(nodes: Sequence[int], stage: StagedRelease, seed: int) -> frozenset[int]:
    """Returns the nodes of a stage's cohort; a larger one holds the smaller one of its release.

    Args:
        nodes: All registered nodes, in any order; the same ones every night.
        stage: The stage.
        seed: Key of the cohorts.
    """
    order = stream(seed, Purpose.ROLLOUT, stage.version).permutation(len(nodes))
    ascending = sorted(nodes)
    return frozenset(ascending[int(place)] for place in order[: stage.size])


def forecast_cohort(cohort: Sequence[DecisionReport], tally: Tally) -> Forecast | None:
    """Returns the forecast of a cohort; None where too few devices reported.

    The fleet is taken to be what the largest number of a class that ever reported on one release
    says; devices that never did are unknown to the server.
    """
    if len(cohort) < FEWEST_DEVICES:
        return None
    version = cohort[0].release
    versions, classes = list(tally.by_release()), list(tally.by_class())
    earlier = Tally(cells=tuple(cell for cell in tally.cells if cell[0][0] < version))
    retune_j = dict.fromkeys(classes, UNKNOWN_J)
    if earlier.of().joules_per_retune:
        retune_j = typical_retune_j(earlier, classes)
    fleet: Fleet = {
        name: DeviceClass(
            devices=max(tally.of(number, name).devices for number in versions),
            retune_j=retune_j[name],
        )
        for name in classes
    }
    return forecast(fleet, cohort)


def _judged(plain: Mapping[str, Any]) -> JudgedRelease:
    told, found = plain["decision"], plain["forecast"]
    if found is not None:
        read: dict[str, Any] = dict(found)
        read |= {name: Interval(**read[name]) for name in QUANTITIES}
        found = Forecast(**read)
    decision = RolloutDecision(action=RolloutAction(told["action"]), reasons=tuple(told["reasons"]))
    return JudgedRelease(
        version=plain["version"], round=plain["round"], decision=decision, forecast=found
    )


@dataclass(slots=True, kw_only=True)
class Rollouts:
    """The roll-outs of a run.

    Attributes:
        staging: How releases go out.
        seed: Key of the cohorts.
        arms: Every arm's roll-out, by name.
    """

    staging: Staging = field(default_factory=Unstaged)
    seed: int = 0
    arms: dict[str, ArmRollout] = field(default_factory=dict[str, ArmRollout])

    @property
    def is_staged(self) -> bool:
        """Whether reports of cohorts are to be kept."""
        return isinstance(self.staging, Staged)

    @property
    def cohort_retunes(self) -> bool:
        """Whether guidance tells cohorts to retune."""
        return isinstance(self.staging, Staged) and self.staging.cohort_retunes

    def told(
        self, arm: str, nodes: Sequence[int], night: tuple[int, int], tally: Tally
    ) -> VersionAssignment:
        """Returns what an arm's devices are told of tonight, after a step of its roll-out.

        Args:
            arm: The arm.
            nodes: Registered devices.
            night: Version that is out, and the round.
            tally: What the arm's devices did so far.
        """
        if not isinstance(self.staging, Staged):
            return VersionAssignment(rollout=ArmRollout(base=night[0]), members={})
        rollout = self.arms.setdefault(arm, ArmRollout())
        rollout.step(self.staging, len(nodes), night, tally)
        members = {one.version: cohort_of(nodes, one, self.seed) for one in rollout.stages}
        return VersionAssignment(rollout=rollout, members=members)

    def take(self, arm: str, reports: Sequence[DecisionReport]) -> None:
        """Adds what an arm's devices decided in a round."""
        if arm in self.arms:
            self.arms[arm].take(reports)

    def plain(self) -> dict[str, Any]:
        """Returns everything as JSON can hold it."""
        return {arm: rollout.plain() for arm, rollout in self.arms.items()}

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Takes over what `plain` wrote."""
        self.arms = {arm: read_arm_rollout(entry) for arm, entry in plain.items()}

    def rows(self, tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
        """Returns all forecasts with their outcomes."""
        return [
            {"arm": arm, **row}
            for arm, rollout in self.arms.items()
            for row in rollout.rows(tallies.get(arm, Tally()))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionAssignment:
    """What an arm's devices are told of in one night.

    Attributes:
        rollout: The arm's roll-out as it is tonight.
        members: Nodes of every stage's cohort, by version.
    """

    rollout: ArmRollout
    members: Mapping[int, frozenset[int]]

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions that some device is told of."""
        return (self.rollout.base, *self.members)

    @property
    def settled(self) -> tuple[DecisionReport, ...]:
        """Reports of the cohort whose release everybody gets from tonight on; else none."""
        return self.rollout.settled

    def of(self, node: int) -> int:
        """Returns the version that a device is told of."""
        return self.rollout.told(self.members, node)
