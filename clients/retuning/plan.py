"""Retune: what a tune would be on this device, and what hinders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from clients.adaptation.decision import OLD, Decision
from clients.night.order import NightOrder
from clients.placement.rules import ProbingRule
from clients.policy import DevicePolicy
from clients.state.state import DeviceState
from clients.tuning.context import PlacementContext
from clients.tuning.footprint import (
    cached_bytes,
    cheapest_tune,
    fits_memory,
    peak_bytes,
    tune_entries,
)
from clients.tuning.plan import TunePlan
from clients.tuning.schedule import Held
from fleettune.adapters.patch import Patch, Placement, to_arrays
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import ProbeJob, ProbeResult
from fleettune.seeds import Purpose, stream

T = TypeVar("T")


def open_context(
    order: NightOrder,
    state: DeviceState,
    examples: Sequence[Example],
    pairs: Sequence[Example] = (),
) -> PlacementContext | str:
    """Returns what a placement is decided from, or in one word why there can be no tune.

    Args:
        order: The night.
        state: What the device holds.
        examples: The answered exchanges; what is validated on is held out of them.
        pairs: Synthetic pairs, which are only trained on.
    """
    if not examples:
        return "empty_buffer"
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


def probe_jobs(policy: DevicePolicy, context: PlacementContext | str) -> Sequence[ProbeJob]:
    """Returns what the placement rule wants to measure before it places; mostly nothing."""
    if isinstance(context, str) or not isinstance(policy.placement, ProbingRule):
        return ()
    return policy.placement.probes(context)


def refit_plan(
    policy: DevicePolicy, context: PlacementContext, placement: Placement
) -> TunePlan | None:
    """Returns another tune at a placement, placed anew where its rule's limits ask for it.

    None where that does not fit the device.
    """
    rule = policy.placement
    if isinstance(rule, ProbingRule) and not rule.allows(context, placement):
        plan = plan_tune(policy, context)
        return None if isinstance(plan, str) else plan
    return schedule(policy, context, placement) if fits_memory(context, placement) else None


def plan_tune(
    policy: DevicePolicy, context: PlacementContext | str, probed: Sequence[ProbeResult] = ()
) -> TunePlan | str:
    """Returns the tune of a device, or in one word why it can have none.

    Where the placement does not fit the device's memory, its rule is asked for a smaller one. A
    prefix cache that does not fit the quota is left out.

    Args:
        policy: What the device was told.
        context: What the placement is decided from, or already why there can be no tune.
        probed: Results of `probe_jobs`, in their order, where the context has none yet.
    """
    if isinstance(context, str):
        return context
    if probed:
        context = replace(context, probed=tuple(probed))
    rule = policy.placement
    placement = rule.place(context)
    while isinstance(placement, Placement):
        if placement.size_bytes(context.release.shapes) > context.room_bytes:
            return "patch_over_quota"
        if fits_memory(context, placement):
            return schedule(policy, context, placement)
        placement = rule.smaller(placement) or "over_memory"
    return placement


def schedule(policy: DevicePolicy, context: PlacementContext, placement: Placement) -> TunePlan:
    """Returns the steps of a tune at a placement, with a prefix cache where there is room."""
    rule = policy.placement
    if isinstance(rule, ProbingRule):
        cache, entries = cheapest_tune(context, placement, cache=rule.prefix_cache)
    else:
        facts, release = context.facts, context.release
        lowest = min(site.layer for site in facts.priced.ranks(release.shapes, placement.ranks))
        cache = cached_bytes(context) if policy.tuning.prefix_cache and lowest > 0 else 0
        if placement.size_bytes(release.shapes) + cache > context.room_bytes:
            cache = 0
        entries = tune_entries(context, placement.ranks, cached=cache > 0)
    return TunePlan(
        placement=placement,
        batches=context.batches,
        cache_bytes=cache,
        entries=entries,
        held=context.held,
    )


def peak_of(policy: DevicePolicy, context: PlacementContext | str, plan: TunePlan | str) -> int:
    """Returns the memory at the peak of a tune, or of one that a device could not hold.

    What a rule trained before it placed is counted. 0 where there is nothing to tune on, and where
    a probe was needed to place at all.
    """
    if isinstance(context, str):
        return 0
    placement: Placement | str = "unplaced"
    if isinstance(plan, TunePlan):
        placement = plan.placement
    elif not isinstance(policy.placement, ProbingRule):
        placement = policy.placement.place(context)
    before = 0 if context.trained is None else context.trained.peak_bytes
    after = 0.0
    if isinstance(placement, Placement):
        after = peak_bytes(context, placement.ranks, placement.shared)
    return round(max(before, after))


def budget_steps(policy: DevicePolicy, decision: Decision) -> DevicePolicy:
    """Returns the policy with the steps of this retune."""
    if decision.steps is None:
        return policy
    return replace(policy, tuning=replace(policy.tuning, steps=decision.steps, epochs=None))


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
