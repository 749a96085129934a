"""Stages: a first cohort gets a release, a forecast is made of it, then everybody does or not.

On the first night of a release a random cohort gets it, the others stay with the release before.
From the second night on the server decides by `strategies.rollout.rules`, once a night and for
every arm by itself: what is released goes to everybody; what is held goes to a cohort of twice the
size.

A release that is rolled back is withheld: those that have it keep it, nobody else gets it, and the
next release replaces it everywhere. With `recalls` those that have it are told of the release
before, which they download again, for a device keeps one release only. A patch of it is loaded
where the device kept that, else the device decides anew (`clients.decision.recalled_release`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleettune.seeds import Purpose, stream
from strategies.learning.decision_reports import DecisionReport, sort_reports
from strategies.learning.decision_sums import Tally
from strategies.rollout.forecast import (
    FEWEST_DEVICES,
    DeviceClass,
    Fleet,
    FleetOutcome,
    Forecast,
    forecast,
    forecast_rows,
    typical_retune_j,
)
from strategies.rollout.rules import RolloutAction, RolloutDecision, Staged, cohort_size


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRollout:
    """One arm's releases on their way to everybody.

    Attributes:
        base: Version that everybody may have.
        stages: Later ones that only cohorts have, oldest first.
        cohort: Reports of the newest stage, in an order of their own values.
        judged: Every night's decision so far.
        released: Versions that went on from a cohort to everybody.
        settled: Reports of the cohort whose release went on to everybody tonight; else none.
    """

    base: int = 0
    stages: tuple[StagedRelease, ...] = ()
    cohort: tuple[DecisionReport, ...] = ()
    judged: tuple[JudgedRelease, ...] = ()
    released: tuple[int, ...] = ()
    settled: tuple[DecisionReport, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionAssignment:
    """What an arm's devices are told of in one night.

    Attributes:
        base: Version that a device in no cohort is told of.
        members: Nodes of every stage's cohort, by version, oldest first.
    """

    base: int
    members: Mapping[int, frozenset[int]]

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions that some device is told of."""
        return (self.base, *self.members)

    def of(self, node: int) -> int:
        """Returns the version that a device is told of: the newest whose cohort it is in."""
        newest_first = reversed(list(self.members))
        return next((one for one in newest_first if node in self.members[one]), self.base)


def add_reports(rollout: ArmRollout, reports: Iterable[DecisionReport]) -> ArmRollout:
    """Returns the roll-out with the reports that are of its newest stage."""
    if not rollout.stages:
        return rollout
    version = rollout.stages[-1].version
    new = [report for report in reports if report.release == version]
    return replace(rollout, cohort=tuple(sort_reports([*rollout.cohort, *new])))


def step_rollout(
    rollout: ArmRollout, staged: Staged, devices: int, night: tuple[int, int], tally: Tally
) -> ArmRollout:
    """Returns the roll-out after a night began: a release's stage begins, or is decided about.

    Args:
        rollout: As the night before left it.
        staged: The rule.
        devices: Registered devices.
        night: Version that is out, and the round.
        tally: What the arm's devices did so far.
    """
    version, round_number = night
    rollout = replace(rollout, settled=())
    known = max([rollout.base, *(stage.version for stage in rollout.stages)])
    if version > known:
        size = cohort_size(devices, staged.share, min(staged.least, devices))
        stage = StagedRelease(version=version, size=size)
        return replace(rollout, stages=(*rollout.stages, stage), cohort=())
    if rollout.stages and not rollout.stages[-1].withheld:
        return _decide(rollout, staged, devices, round_number, tally)
    return rollout


def _decide(
    rollout: ArmRollout, staged: Staged, devices: int, round_number: int, tally: Tally
) -> ArmRollout:
    *earlier, stage = rollout.stages
    found = forecast_cohort(rollout.cohort, tally)
    decision = RolloutDecision(action=RolloutAction.HOLD, reasons=("too_few_reports",))
    if found is not None:
        decision = staged.decide(found)
    judged = JudgedRelease(
        version=stage.version, round=round_number, decision=decision, forecast=found
    )
    rollout = replace(rollout, judged=(*rollout.judged, judged))
    if decision.action is RolloutAction.RELEASE or stage.size == devices:
        return ArmRollout(
            base=stage.version,
            judged=rollout.judged,
            released=(*rollout.released, stage.version),
            settled=rollout.cohort,
        )
    if decision.action is RolloutAction.HOLD:
        stage = replace(stage, size=min(2 * stage.size, devices))
    else:
        # a recalled release stays known, with nobody in its cohort
        stage = replace(stage, size=0 if staged.recalls else stage.size, withheld=True)
    return replace(rollout, stages=(*earlier, stage))


def assign_versions(rollout: ArmRollout, nodes: Sequence[int], seed: int) -> VersionAssignment:
    """Returns which version every device is told of tonight.

    Args:
        rollout: The arm's roll-out.
        nodes: Registered devices.
        seed: Key of the cohorts.
    """
    members = {one.version: cohort_of(nodes, one, seed) for one in rollout.stages}
    return VersionAssignment(base=rollout.base, members=members)


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
    retune_j = typical_retune_j(earlier, classes)
    fleet: Fleet = {
        name: DeviceClass(
            devices=max(tally.of(number, name).devices for number in versions),
            retune_j=retune_j[name],
        )
        for name in classes
    }
    return forecast(fleet, cohort)


def rollout_rows(rollout: ArmRollout, tally: Tally) -> list[dict[str, Any]]:
    """Returns a row per forecast quantity, the outcome beside it where everybody got it."""
    rows: list[dict[str, Any]] = []
    for entry in rollout.judged:
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
        everybody = entry.version in rollout.released
        hidden = {} if everybody else {"outcome": None, "covered": None}
        compared = forecast_rows(entry.forecast, outcome)
        rows += [{**head, **known, **one, **hidden} for one in compared]
    return rows
