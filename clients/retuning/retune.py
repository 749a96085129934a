"""What a device measures, places, trains and looks at when it tunes its patch."""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.decision import Action, PatchHistory
from clients.adaptation.device_view import nats_per_token
from clients.night.night import Night, bill
from clients.night.order import NightOrder
from clients.night.shelving import with_patch
from clients.placement.rules import places_alike, prepare, trained_start
from clients.retuning.early_stopping import run_tune
from clients.retuning.plan import (
    begin,
    go_on,
    keep_placement,
    old_start,
    open_context,
    plan_tune,
)
from clients.retuning.synthetic_pairs import add_pairs
from clients.start.rules import StartContext
from clients.state.kept_out import newest_kept_out, training_exchanges
from clients.tuning.context import UNPREPARED, Hindered
from clients.tuning.first_patch import new_start, warm_start
from clients.tuning.plan import TunePlan
from clients.work.stage_work import fleet_patch_work, score_work
from fleettune.adapters.patch import Patch, Placement


def retune(order: NightOrder, night: Night) -> Night:
    """Trains a new patch where the device can; what hinders it is its decision's reason."""
    rule, policy, state = order.policy.placement, order.policy, night.state
    examples = order.examples(training_exchanges(order.facts, policy.adaptation, state))
    if not examples:
        return _hinder(night, Hindered(reason="empty_buffer"))
    again, order = go_on(order, night.decision, state.patch), begin(order)
    context, whole = (open_context(one, state, examples) for one in (again, order))
    kept = keep_placement(rule, context, whole, state.patch, night.decision)
    if kept or places_alike(rule):
        order = again
    else:  # a new placement starts anew, whatever was decided
        context = whole
    preparation = UNPREPARED if kept else prepare(rule, context)
    if isinstance(preparation, Hindered):
        return _hinder(night, preparation)
    night = bill(order, night, preparation.entries)
    if night.over:
        return night
    plan = plan_tune(rule, replace(context, preparation=preparation), kept)
    if isinstance(plan, Hindered):
        return _hinder(night, plan)
    night = replace(night, peak_bytes=round(plan.peak_bytes))
    plan = add_pairs(order, state, plan)
    night = _search_catalogue(order, night, plan.placement)
    return night if night.over else _tune(order, night, plan)


def _hinder(night: Night, why: Hindered) -> Night:
    """Returns the night without a tune, and with the reason."""
    decision = replace(night.decision, action=Action.INFEASIBLE, reason=why.reason)
    return replace(night, decision=decision, peak_bytes=round(why.peak_bytes))


def _tune(order: NightOrder, night: Night, plan: TunePlan) -> Night:
    """Trains as planned, and scores the canaries with the new patch."""
    facts, release, found = order.facts, order.release, night.catalogue_start
    kept_out = newest_kept_out(facts, order.policy.adaptation, night.state)
    canaries = order.examples(kept_out)
    start, fleet_part = _start(order, night, plan)
    is_fleets = found is None or found.patch is None
    # a start from the catalogue was billed when it was found
    brought = fleet_patch_work(facts, release, fleet_part) if fleet_part and is_fleets else []
    looking = score_work(facts, release, plan.placement.ranks, canaries)
    stops = bool(plan.held.after)
    # where a tune may stop early, only its end says what it asked
    night = night if stops else bill(order, night, [*brought, *plan.work, *looking])
    if night.over:
        return night
    patch, plan = run_tune(plan, start)
    night = bill(order, night, [*brought, *plan.work, *looking]) if stops else night
    if night.over:
        return night
    canary = nats_per_token(release, patch, canaries, order.compute)
    state = with_patch(order, night.state, patch, plan.cache_bytes)
    state = replace(state, history=PatchHistory(canary=canary, tuned_day=state.last_day))
    done = replace(night, state=state, trained=patch, plan=plan, canary=canary)
    return replace(done, fleet_part=fleet_part)


def _search_catalogue(order: NightOrder, night: Night, placement: Placement) -> Night:
    """Finds and brings what a first tune starts from, where a catalogue is offered."""
    offer, state, facts = order.catalogue, night.state, order.facts
    if offer is None or state.patch is not None:
        return night
    context = StartContext(
        facts=facts,
        release=order.release,
        offer=offer,
        exchanges=training_exchanges(facts, order.policy.adaptation, state),
        placement=placement,
        compute=order.compute,
    )
    found = order.policy.start.find(context)
    return replace(bill(order, night, found.entries), catalogue_start=found)


def _start(order: NightOrder, night: Night, plan: TunePlan) -> tuple[Patch, Patch | None]:
    """Returns what the tune starts from, and the part of the fleet patch that is in it.

    That is the old patch where the decision says so, what the placement rule trained before, or an
    untrained patch with an entry of the catalogue or what the fleet learned in it.
    """
    rule, frozen = order.policy.placement, order.policy.tuning.frozen_a
    fresh = new_start(order.facts, order.release, plan.placement, shared=frozen)
    start = old_start(night.state.patch, fresh, night.decision)
    start = start or trained_start(rule, plan.context.preparation, fresh)
    if start is not None:
        return start, None
    found = night.catalogue_start
    if found is not None and found.patch is not None:
        return warm_start(fresh, found.patch)
    # a shared A stays what it is on all devices, so nothing of the fleet's goes into it
    return warm_start(fresh, None if frozen else order.fleet)
