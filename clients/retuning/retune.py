"""Retuning: what a device measures, places, trains and looks at when it tunes its patch."""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.decision import Action, PatchHistory
from clients.adaptation.device_view import nats_per_token
from clients.night.night import Night, NightOrder, bill
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
    with_probes,
)
from clients.retuning.synthetic_pairs import add_pairs
from clients.start.rules import StartContext
from clients.state.kept_out import held_out_examples, training_exchanges
from clients.tuning.context import PlacementContext
from clients.tuning.first_patch import new_start, warm_start
from clients.work.stage_work import fleet_patch_work, probe_work, score_work
from fleettune.adapters.patch import Patch, Placement
from fleettune.jobs.jobs import Compute


def retune(order: NightOrder, night: Night, compute: Compute) -> Night:
    """Trains a new patch where the device can; what hinders it is its decision's reason."""
    order = replace(order, policy=budget_steps(order.policy, night.decision))
    facts, release, policy, state = order.facts, order.release, order.policy, night.state
    encoder = facts.encoder(release)
    examples = [encoder.example(e) for e in training_exchanges(facts, policy.adaptation, state)]
    context = open_context(facts, release, policy, state, examples)
    night, context = _measured(order, night, context, compute)
    if night.over:
        return night
    plan = plan_tune(policy, context)
    night = replace(night, peak_bytes=peak_of(policy, context, plan))
    if isinstance(plan, str):
        hindered = replace(night.decision, action=Action.INFEASIBLE, reason=plan)
        return replace(night, decision=hindered)
    if not isinstance(context, str):
        plan = add_pairs(context, policy, state, plan, compute)
    night = _from_catalogue(order, night, plan.placement, compute)
    if night.over:
        return night
    canaries = held_out_examples(facts, release, policy, state)
    looking = score_work(facts, release, plan.placement.ranks, canaries)
    start, begun = _start(order, night, context, plan.placement)
    is_fleets = night.found is None or night.found.patch is None
    # a start from the catalogue was charged when it was found
    brought = fleet_patch_work(facts, release, begun) if begun and is_fleets else []
    stops = bool(plan.held.after)
    # where a tune may stop early, only its end says what it asked
    night = night if stops else bill(order, night, [*brought, *plan.work, *looking])
    if night.over:
        return night
    patch, plan = run_tune(facts, release, policy.tuning, plan, start, compute)
    night = bill(order, night, [*brought, *plan.work, *looking]) if stops else night
    if night.over:
        return night
    canary = nats_per_token(release, patch, canaries, compute)
    state = with_patch(order, night.state, patch, plan.cache_bytes)
    state = replace(state, history=PatchHistory(canary=canary, tuned_day=state.last_day))
    return replace(night, state=state, trained=patch, plan=plan, canary=canary, begun=begun)


def _from_catalogue(
    order: NightOrder, night: Night, placement: Placement, compute: Compute
) -> Night:
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
        compute=compute,
    )
    found = order.policy.start.find(context)
    return replace(bill(order, night, list(found.entries)), found=found)


def _measured(
    order: NightOrder, night: Night, context: PlacementContext | str, compute: Compute
) -> tuple[Night, PlacementContext | str]:
    """Does what the placement rule wants to see before it places: nothing, probes or training."""
    rule = order.policy.placement
    if isinstance(context, str):
        return night, context
    if isinstance(rule, TrainingRule):
        trained = rule.train(context, order.policy.tuning, compute)
        if isinstance(trained, str):
            return night, trained
        return bill(order, night, trained.entries), replace(context, trained=trained)
    jobs = probe_jobs(order.policy, context)
    night = bill(order, night, probe_work(order.facts, order.release, jobs))
    found = () if night.over else tuple(compute.probe(job) for job in jobs)
    return night, with_probes(context, jobs, found)


def _start(
    order: NightOrder, night: Night, context: PlacementContext | str, placement: Placement
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
    trained = None if isinstance(context, str) else context.trained
    if trained is not None and isinstance(rule, TrainingRule):
        return rule.start(trained, fresh), None
    if night.found is not None and night.found.patch is not None:
        return warm_start(fresh, night.found.patch)
    # a shared A stays what it is on all devices, so nothing of the fleet's goes into it
    return warm_start(fresh, None if frozen else order.fleet)
