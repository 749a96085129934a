"""Deciding: a release that is new to the device is weighed, and what was decided is done."""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.decision import Action, Decision
from clients.adaptation.protocol import traits_of
from clients.decision.ask_rule import ask_rule, decision_work
from clients.decision.recalled_release import decide_again, has_had, mark_recalled, restore_patch
from clients.night.night import Night, bill
from clients.night.order import NightOrder
from clients.observer.counterfactual import ask_observer
from clients.retuning.retune import retune
from clients.work.stage_work import fleet_patch_work


def decide(order: NightOrder, night: Night) -> Night:
    """Does what the policy decides about the patch; cut short, the next night decides again."""
    night = _take_fleet_patch(order, night)
    if night.over:
        return night
    facts, release, state = order.facts, order.release, night.state
    returns = has_had(state, release)
    if returns:
        night = replace(night, state=restore_patch(order, state))
        decision = decide_again(order, night.state)
    else:
        decision = ask_rule(order, state)
    decided = bill(order, night, decision_work(facts, release, night.state.patch, decision))
    if decided.over:
        return replace(decided, state=state)
    decided = _keeping(decided, decision)
    if decision.action is Action.RETUNE:
        decided = _tried(order, decided, retune(order, decided))
    if decided.over:
        return replace(decided, decision=night.decision, state=state)
    decided = mark_recalled(decided) if returns else decided
    return replace(decided, state=replace(decided.state, settled=release.version, before=None))


def _take_fleet_patch(order: NightOrder, night: Night) -> Night:
    """Brings the fleet patch to a device that serves with nothing else."""
    fleet, quota = order.fleet, order.policy.quota
    if night.over or fleet is None or not traits_of(order.policy.adaptation).takes_fleet_patch:
        return night
    taken = replace(night.state, patch=fleet)
    if taken.stored_bytes > quota.total_bytes:
        return night
    night = bill(order, night, fleet_patch_work(order.facts, order.release, fleet))
    return night if night.over else replace(night, state=taken)


def _keeping(night: Night, decision: Decision) -> Night:
    """Returns the night with a decision, and with what its rule keeps."""
    patch = None if decision.action is Action.NEVER else night.state.patch
    kept = replace(night.state, patch=patch, history=decision.history)
    return replace(night, decision=decision, state=kept)


def _tried(order: NightOrder, kept: Night, tuned: Night) -> Night:
    """Returns the night with the retune, or without it where an oracle is told otherwise."""
    ahead = traits_of(order.policy.adaptation).look_ahead
    # the first patch is tuned without a trial, for there is nothing to compare it with
    if ahead is None or kept.state.patch is None or tuned.trained is None:
        return tuned
    told = ask_observer(order, ahead, (kept.state, tuned.state))
    return replace(tuned if told.action is Action.RETUNE else kept, decision=told)
