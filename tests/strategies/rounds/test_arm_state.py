"""An arm's state: a night assigns releases, sums replies, and the fleet patch goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleettune.adapters.updates import updates_of
from strategies.learning.guidance_rules import Fixed, Unguided
from strategies.rollout.rules import Unstaged
from strategies.rounds.arm_state import (
    ArmRules,
    ArmState,
    add_round,
    assign_releases,
    grow_fleet,
    guidance_for,
)
from strategies.rounds.sums import sum_replies
from tests.strategies.rollout.test_stages import NODES, STAGED
from tests.strategies.rounds.test_sums import reply

FIXED = Fixed(
    intercept=-1.0, log_drift=2.0, canary=3.0, canary_level=0.0, canary_missing=4.0, threshold=0.6
)


def test_without_stages_everybody_is_told_of_the_newest_release() -> None:
    rules = ArmRules(guidance=Unguided(), staging=Unstaged(), seed=0)
    state, assigned = assign_releases(ArmState(), rules, NODES, (3, 6))
    assert state == ArmState()
    assert assigned.versions == (3,)
    assert {assigned.of(node) for node in NODES} == {3}


def test_a_first_cohort_may_be_told_to_retune_and_the_others_are_not() -> None:
    rules = ArmRules(guidance=FIXED, staging=STAGED, seed=0)
    state, assigned = assign_releases(ArmState(), rules, NODES, (1, 2))
    assert assigned.versions == (0, 1)
    assert len(assigned.members[1]) == 8
    cohort = guidance_for(state, rules, 1, is_cohort=True)
    assert cohort == FIXED.guidance()
    telling = ArmRules(guidance=FIXED, staging=replace(STAGED, cohort_retunes=True), seed=0)
    told = [guidance_for(state, telling, 1, is_cohort=one) for one in (True, False)]
    assert [one.decision for one in told if one is not None] == ["retune", ""]


def test_a_round_adds_its_sums_and_the_fleet_patch_those_of_its_deltas() -> None:
    running = sum_replies("a", iter([reply(0, energy_j=2.0, delta=1.0), reply(1, delta=3.0)]))["a"]
    state = add_round(ArmState(), running, 4, 1)
    assert [(one.round, one.release, one.energy_j) for one in state.sums] == [(4, 1, 3.0)]
    assert state.learning.tally.of().devices == 2
    grown = grow_fleet(state, None, running.update.updates(), 8, 0)
    assert grown.fleet is not None
    # the mean of 1 and 3, once more on top of itself
    more = grow_fleet(grown, grown.fleet, running.update.updates(), 8, 0)
    assert more.fleet is not None
    assert [one.dense().item() for one in updates_of(more.fleet).values()] == [pytest.approx(4.0)]
    assert grow_fleet(state, None, {}, 8, 0) == state
