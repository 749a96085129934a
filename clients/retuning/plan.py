"""Retune: what a tune would be on this device, and what hinders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from clients.adaptation import traits_of
from clients.adaptation.decision import OLD, Decision
from clients.night.order import NightOrder
from clients.placement.rules import (
    PlacementRule,
    allows,
    allows_again,
    over_budget,
    planned_cache,
    shrink_placement,
)
from clients.state.state import DeviceState
from clients.tuning.context import Hindered, PlacementContext
from clients.tuning.footprint import (
    cached_bytes,
    cheapest_tune,
    fits_memory,
    peak_bytes,
    tune_entries,
)
from clients.tuning.plan import TunePlan
from clients.tuning.schedule import Held
from fleettune.adapters.patch import Patch, Placement, placement_of, to_arrays
from fleettune.data.tokens import Example
from fleettune.seeds import Purpose, stream

T = TypeVar("T")


def open_context(
    order: NightOrder,
    state: DeviceState,
    examples: Sequence[Example],
    pairs: Sequence[Example] = (),
) -> PlacementContext:
    """Returns what a placement is decided from.

    Args:
        order: The night.
        state: What the device holds.
        examples: The answered exchanges, at least one; what is validated on is held out of them.
        pairs: Synthetic pairs, which are only trained on.
    """
    facts, release, tuning = order.facts, order.release, order.policy.tuning
    kept, held = split_holdout(order, examples)
    training = [*kept, *pairs]
    longest = sorted((len(example.tokens) for example in training), reverse=True)
    rng = stream(facts.seed, Purpose.TUNING, facts.device, release.version)
    after = tuning.epoch_ends(len(training)) if held else ()
    return PlacementContext(
        facts=facts,
        release=release,
        tuning=tuning,
        compute=order.compute,
        batches=tuning.batches(training, rng),
        largest=tuple(longest[: tuning.batch]),
        room_bytes=order.policy.quota.total_bytes - state.buffer_bytes - state.beside_bytes,
        held=Held(examples=held, after=after),
        training=tuple(training),
    )


def split_holdout(order: NightOrder, items: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Returns what a device trains on for a release and what it holds out, by its own stream."""
    keys = (order.facts.device, order.release.version)
    rng = stream(order.facts.seed, Purpose.HOLDOUT, *keys)
    return order.policy.tuning.split(items, rng)


def go_on(order: NightOrder, decision: Decision, old: Patch | None) -> NightOrder:
    """Returns the night with the tuning of a retune that goes on from the old patch, if it does.

    Else it is the night of a tune that begins anew (`begin`).
    """
    if decision.start != OLD or old is None:
        return begin(order)
    return replace(order, policy=replace(order.policy, tuning=order.policy.tuning.again()))


def begin(order: NightOrder) -> NightOrder:
    """Returns the night with the tuning of a tune that begins anew, by how its rule goes on."""
    if traits_of(order.policy.adaptation).goes_on_from != OLD:
        return order
    return replace(order, policy=replace(order.policy, tuning=order.policy.tuning.first()))


def keep_placement(
    rule: PlacementRule,
    context: PlacementContext,
    whole: PlacementContext,
    old: Patch | None,
    decision: Decision,
) -> Placement | None:
    """Returns the old patch's placement where a retune goes on from it and its rule allows that.

    Only a rule with a budget is asked: it then probes nothing anew. None for all others.

    Args:
        rule: The rule.
        context: The retune that goes on from the old patch.
        whole: The tune that would begin anew in its place; its limits count.
        old: The old patch.
        decision: What the device decided.
    """
    placement = None if decision.start != OLD or old is None else placement_of(old)
    if placement is None or not allows_again(rule, context, whole, placement):
        return None
    return placement if fits_memory(context, placement) else None


def plan_tune(
    rule: PlacementRule, context: PlacementContext, kept: Placement | None = None
) -> TunePlan | Hindered:
    """Returns the tune of a device, or what hinders it.

    Where the placement does not fit the device's memory, its rule is asked for a smaller one. A
    prefix cache that does not fit the quota is left out. A placement that is kept stands.
    """
    before = context.preparation.peak_bytes
    placement = kept or rule.place(context)
    if isinstance(placement, Hindered):
        return replace(placement, peak_bytes=before)
    peak = max(before, peak_bytes(context, placement.ranks, placement.shared))
    smaller: Placement | None = placement
    while smaller is not None:
        if smaller.size_bytes(context.release.shapes) > context.room_bytes:
            return Hindered(reason="patch_over_quota", peak_bytes=peak)
        if fits_memory(context, smaller):
            plan = schedule(rule, context, smaller)
            # what is kept was allowed by the limits of a tune that begins anew
            return replace(plan, over_budget=plan.over_budget and kept is None)
        smaller = shrink_placement(rule, smaller)
    return Hindered(reason="over_memory", peak_bytes=peak)


def replan_tune(
    rule: PlacementRule, context: PlacementContext, placement: Placement
) -> TunePlan | None:
    """Returns another tune at a placement, placed anew where its rule's limits ask for it.

    None where that does not fit the device.
    """
    if not allows(rule, context, placement):
        plan = plan_tune(rule, context)
        return None if isinstance(plan, Hindered) else plan
    return schedule(rule, context, placement) if fits_memory(context, placement) else None


def schedule(rule: PlacementRule, context: PlacementContext, placement: Placement) -> TunePlan:
    """Returns the steps of a tune at a placement, with a prefix cache where there is room."""
    wanted, ranks = planned_cache(rule), placement.ranks
    if wanted is not None:
        cache, entries = cheapest_tune(context, placement, cache=wanted)
    else:
        shapes = context.release.shapes
        lowest = min(site.layer for site in context.facts.priced.ranks(shapes, ranks))
        cache = cached_bytes(context) if context.tuning.prefix_cache and lowest > 0 else 0
        if placement.size_bytes(shapes) + cache > context.room_bytes:
            cache = 0
        entries = tune_entries(context, ranks, cached=cache > 0)
    peak = peak_bytes(context, ranks, placement.shared)
    return TunePlan(
        context=context,
        placement=placement,
        batches=context.batches,
        cache_bytes=cache,
        entries=entries,
        peak_bytes=max(context.preparation.peak_bytes, peak),
        over_budget=over_budget(rule, context, placement),
        held=context.held,
    )


def old_start(old: Patch | None, fresh: Patch, decision: Decision) -> Patch | None:
    """Returns the old patch to go on from where that is wanted and fits, else None.

    It fits if every factor has the shape that the fresh patch has, and every alpha is the same.
    """
    if decision.start != OLD or old is None or _layout(old) != _layout(fresh):
        return None
    return replace(old, release=fresh.release)


def _layout(patch: Patch) -> object:
    shapes = {name: array.shape for name, array in to_arrays(patch).items()}
    return patch.alpha, [tied.alpha for tied in patch.ties], shapes
