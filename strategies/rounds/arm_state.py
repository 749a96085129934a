"""What the server knows of one arm, as a frozen value, and what a night makes of it.

A night has two halves. First the arm's devices are assigned their releases, with guidance; then the
sums of their replies, and the fleet patch that their deltas make, become part of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Updates
from fleettune.records import OMIT_DEFAULT
from fleettune.releases.guidance import Guidance
from strategies.aggregation.fleet_patch import grow_fleet_patch
from strategies.learning.arm_learning import (
    ArmLearning,
    add_totals,
    follow_cohort,
    guidance_of,
    guide_release,
)
from strategies.learning.decision_reports import RETUNE
from strategies.learning.guidance_rules import GuidanceRule
from strategies.rollout.rules import Staged, Staging
from strategies.rollout.stages import (
    ArmRollout,
    VersionAssignment,
    add_reports,
    assign_versions,
    step_rollout,
)
from strategies.rounds.sums import RoundSum, RunningSum


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmState:
    """One arm after a round.

    Attributes:
        sums: One entry per round so far.
        learning: What its devices decided, and the guidance that was made of it.
        rollout: Where its releases are on their way to everybody.
        fleet: Its fleet patch; None while there is none.
    """

    sums: tuple[RoundSum, ...] = ()
    learning: ArmLearning = field(default_factory=ArmLearning)
    rollout: ArmRollout = field(default_factory=ArmRollout)
    fleet: Patch | None = field(default=None, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRules:
    """What all arms of a run have in common.

    Attributes:
        guidance: How what devices reported becomes what later releases come with.
        staging: Whether a first cohort gets releases before the others.
        seed: Key of the cohorts.
    """

    guidance: GuidanceRule
    staging: Staging
    seed: int

    @property
    def cohort_retunes(self) -> bool:
        """Whether guidance tells first cohorts to retune."""
        return isinstance(self.staging, Staged) and self.staging.cohort_retunes


def assign_releases(
    state: ArmState, rules: ArmRules, nodes: Sequence[int], night: tuple[int, int]
) -> tuple[ArmState, VersionAssignment]:
    """Returns the state after its roll-out made a step, and which release each device is told of.

    Where a first cohort's release goes on to everybody, what the cohort gained decides for them.

    Args:
        state: As the night before left it.
        rules: What all arms have in common.
        nodes: Registered devices.
        night: Version that is out, and the round.
    """
    if not isinstance(rules.staging, Staged):
        assignment = VersionAssignment(base=night[0], members={})
        rollout, learning = state.rollout, state.learning
    else:
        rollout = step_rollout(
            state.rollout, rules.staging, len(nodes), night, state.learning.tally
        )
        assignment, learning = assign_versions(rollout, nodes, rules.seed), state.learning
        if rollout.settled and rules.cohort_retunes:
            learning = follow_cohort(learning, rules.guidance, rollout.base, rollout.settled)
    for version in assignment.versions:
        learning = guide_release(learning, rules.guidance, version)
    return replace(state, learning=learning, rollout=rollout), assignment


def guidance_for(
    state: ArmState, rules: ArmRules, version: int, *, is_cohort: bool
) -> Guidance | None:
    """Returns what some devices of an arm are told with a release; None without guidance.

    Args:
        state: The arm.
        rules: What all arms have in common.
        version: Version of the release.
        is_cohort: Whether the devices are a first cohort, which may be told to retune.
    """
    guidance = guidance_of(state.learning, rules.guidance, version)
    if guidance is not None and is_cohort and rules.cohort_retunes:
        return replace(guidance, decision=RETUNE)
    return guidance


def add_round(state: ArmState, running: RunningSum, night: int, release: int) -> ArmState:
    """Returns the state with a round's sums.

    Args:
        state: As the night began.
        running: The sums over all replies.
        night: The round, 0-based.
        release: Version that is out.
    """
    return replace(
        state,
        sums=(*state.sums, running.close(night, release)),
        learning=add_totals(state.learning, running.reports.totals()),
        rollout=add_reports(state.rollout, running.reports.cohort),
    )


def grow_fleet(
    state: ArmState, sent: Patch | None, updates: Updates, rank: int, release: int
) -> ArmState:
    """Returns the state with the fleet patch that a round's updates make of the one sent.

    Args:
        state: The arm.
        sent: The fleet patch that its devices started from.
        updates: What their deltas say together.
        rank: Largest rank of the new one.
        release: Version that the devices tuned.
    """
    fleet = grow_fleet_patch(sent, updates, rank, release)
    return state if fleet is None else replace(state, fleet=fleet)
