"""Retuning: what a device measures, places, trains and looks at when it tunes its patch."""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.decision import Action, PatchHistory
from clients.adaptation.device_view import nats_per_token
from clients.night.night import Night, bill
from clients.night.order import NightOrder
from clients.night.shelving import with_patch
from clients.placement.rules import TrainingRule
from clients.retuning.early_stopping import run_tune
from clients.retuning.plan import (
    budget_steps,
    old_start,
    open_context,
    peak_of,
    plan_tune,
    probe_jobs,
)
from clients.retuning.synthetic_pairs import add_pairs
from clients.start.rules import StartContext
from clients.state.kept_out import newest_kept_out, training_exchanges
from clients.tuning.context import PlacementContext
from clients.tuning.first_patch import new_start, warm_start
from clients.work.stage_work import fleet_patch_work, probe_work, score_work
from fleettune.adapters.patch import Patch, Placement


def retune(order: NightOrder, night: Night) -> Night:
    """Trains a new patch where the device can; what hinders it is its decision's reason."""
    order = replace(order, policy=budget_steps(order.policy, night.decision))
    facts, release, policy, state = order.facts, order.release, order.policy, night.state
    examples = order.examples(training_exchanges(facts, policy.adaptation, state))
    context = open_context(order, state, examples)
    night, context = _measured(order, night, context)
    if night.over:
        return night
    plan = plan_tune(policy, context)
    night = replace(night, peak_bytes=peak_of(policy, context, plan))
    if isinstance(plan, str) or isinstance(context, str):
        hindered = replace(night.decision, action=Action.INFEASIBLE, reason=str(plan))
        return replace(night, decision=hindered)
    plan = add_pairs(order, state, context, plan)
    night = _from_catalogue(order, night, plan.placement)
    if night.over:
        return night
    canaries = order.examples(newest_kept_out(facts, policy.adaptation, state))
    looking = score_work(facts, release, plan.placement.ranks, canaries)
    start, fleet_part = _start(order, night, context, plan.placement)
    found = night.catalogue_start
    is_fleets = found is None or found.patch is None
    # a start from the catalogue was billed when it was found
    brought = fleet_patch_work(facts, release, fleet_part) if fleet_part and is_fleets else []
    stops = bool(plan.held.after)
    # where a tune may stop early, only its end says what it context
    night = night if stops else bill(order, night, [*brought, *plan.work, *looking])
    if night.over:
        return night
    patch, plan = run_tune(context, plan, start)
    night = bill(order, night, [*brought, *plan.work, *looking]) if stops else night
    if night.over:
        return night
    canary = nats_per_token(release, patch, canaries, order.compute)
    state = with_patch(order, night.state, patch, plan.cache_bytes)
    state = replace(state, history=PatchHistory(canary=canary, tuned_day=state.last_day))
    done = replace(night, state=state, trained=patch, plan=plan, canary=canary)
    return replace(done, fleet_part=fleet_part)


def _from_catalogue(order: NightOrder, night: Night, placement: Placement) -> Night:
    """Finds and brings what a first tune starts from, where a catalogue is offered."""
    offer, state, facts = order.catalogue, night.state, order.facts
    if offer is None or state.patch is not None:
        return night
    kept = training_exchanges(facts, order.policy.adaptation, state)
    context = StartContext(
        facts=facts,
        release=order.release,
        offer=offer,
        exchanges=tuple(kept),
        placement=placement,
        compute=order.compute,
    )
    found = order.policy.start.find(context)
    return replace(bill(order, night, found.entries), catalogue_start=found)


def _measured(
    order: NightOrder, night: Night, context: PlacementContext | str
) -> tuple[Night, PlacementContext | str]:
    """Does what the placement rule wants to see before it places: nothing, probes or training."""
    rule = order.policy.placement
    if isinstance(context, str):
        return night, context
    if isinstance(rule, TrainingRule):
        trained = rule.train(context, order.policy.tuning, order.compute)
        if isinstance(trained, str):
            return night, trained
        return bill(order, night, trained.entries), replace(context, trained=trained)
    jobs = probe_jobs(order.policy, context)
    night = bill(order, night, probe_work(order.facts, order.release, jobs))
    found = () if night.over else tuple(order.compute.probe(job) for job in jobs)
    return night, replace(context, probed=found)


def _start(
    order: NightOrder, night: Night, context: PlacementContext, placement: Placement
) -> tuple[Patch, Patch | None]:
    """Returns what the tune starts from, and the part of the fleet patch that is in it.

    That is the old patch where the decision says so, what the placement rule trained before, or an
    untrained patch with what the fleet learned in it.
    """
    rule, frozen = order.policy.placement, order.policy.tuning.frozen_a
    fresh = new_start(order.facts, order.release, placement, shared=frozen)
    old = old_start(night.state.patch, fresh, night.decision)
    if old is not None:
        return old, None
    trained, found = context.trained, night.catalogue_start
    if trained is not None and isinstance(rule, TrainingRule):
        return rule.start(trained, fresh), None
    if found is not None and found.patch is not None:
        return warm_start(fresh, found.patch)
    # a shared A stays what it is on all devices, so nothing of the fleet's goes into it
    return warm_start(fresh, None if frozen else order.fleet)
