"""Rollouts: which release every device is told of, arm by arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strategies.learning.outcomes import DecisionReport
from strategies.learning.reuse_statistics import Tally
from strategies.rollout.settings import Staged, Staging, Unstaged
from strategies.rollout.stages import ArmRollout, cohort_of, read_arm_rollout


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
