"""Deciding: a release that is new to the device is weighed, and what was decided is done."""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.baselines import TRIAL, Oracle
from clients.adaptation.decision import PUT_OFF, Action, Decision
from clients.adaptation.rules import FleetOnly
from clients.decision.ask_rule import weighed
from clients.decision.recalled_release import brought_back, has_had, told_again, weighed_again
from clients.night.night import Night, Visit, charged
from clients.observer.foresight import foreseen
from clients.retuning.retune import retune
from clients.work import stage_work as charges
from fleettune.jobs.jobs import Compute


def decide(visit: Visit, night: Night, compute: Compute) -> Night:
    """Does what the policy decides about the patch; cut short, the next night decides again."""
    night = _take_fleet_patch(visit, night)
    if night.over:
        return night
    facts, release, state = visit.facts, visit.release, night.state
    returns = has_had(state, release)
    if returns:
        night = replace(night, state=brought_back(visit, state))
        decision = weighed_again(visit, night.state, compute)
    else:
        decision = weighed(facts, release, visit.policy, state, compute)
    decided = charged(visit, night, charges.check(facts, release, night.state.patch, decision))
    if decided.over:
        return replace(decided, state=state)
    decided = _keeping(decided, decision)
    if decision.action is Action.RETUNE and decision.deferred:
        due = replace(decided.state, due=replace(decision, deferred=False, passes=()))
        decided = replace(decided, state=due, decision=PUT_OFF)
    elif decision.action is Action.RETUNE:
        decided = _tried(visit, decided, retune(visit, decided, compute), compute)
    if decided.over:
        return replace(decided, decision=night.decision, state=state)
    decided = told_again(decided) if returns else decided
    return replace(decided, state=replace(decided.state, settled=release.version, before=None))


def _take_fleet_patch(visit: Visit, night: Night) -> Night:
    """Brings the fleet patch to a device that serves with nothing else."""
    fleet, quota = visit.fleet, visit.policy.quota
    if night.over or fleet is None or not isinstance(visit.policy.adaptation, FleetOnly):
        return night
    taken = replace(night.state, patch=fleet)
    if taken.stored_bytes > quota.total_bytes:
        return night
    night = charged(visit, night, charges.fleet_patch(visit.facts, visit.release, fleet))
    return night if night.over else replace(night, state=taken)


def _keeping(night: Night, decision: Decision) -> Night:
    """Returns the night with a decision, and with what its rule keeps."""
    patch = None if decision.action is Action.NEVER else night.state.patch
    kept = replace(night.state, patch=patch, recollection=decision.recollection, due=None)
    return replace(night, decision=decision, state=kept)


def _tried(visit: Visit, kept: Night, tuned: Night, compute: Compute) -> Night:
    """Returns the night with the retune, or without it where an oracle knows better."""
    rule = visit.policy.adaptation
    if not isinstance(rule, Oracle) or kept.decision.reason != TRIAL or tuned.trained is None:
        return tuned
    told = foreseen(visit.facts, rule, (kept.state, tuned.state), visit.round, compute)
    return replace(tuned if told.action is Action.RETUNE else kept, decision=told)


def catch_up(visit: Visit, night: Night, due: Decision, compute: Compute) -> Night:
    """Does a retune that was put off; cut short, it stays due."""
    done = retune(visit, _keeping(night, due), compute)
    if done.over:
        return replace(done, decision=night.decision, state=night.state)
    return done
