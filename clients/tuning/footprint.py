"""Footprint: what a tune takes of a device, in joules, memory and storage, before it is begun."""

from __future__ import annotations

from collections.abc import Iterable

from clients.tuning.context import PlacementContext
from clients.work.facts import Facts
from clients.work.stage_work import cache_bytes, tune_work, validation_work
from fleettune.adapters.patch import Placement
from fleettune.cost.energy import price
from fleettune.cost.memory import memory_peak_bytes, shared_bytes
from fleettune.cost.workload import Entry, Workload
from fleettune.shapes import Groups, Ranks


def joules(facts: Facts, entries: Iterable[Entry]) -> float:
    """Returns the joules of work on a device, its idle draw meanwhile included (simulated).

    What heat adds to the idle draw is left out: it depends on the whole night.
    """
    return price(Workload().plus_all(entries), facts.prices).total().energy_j


def peak_bytes(context: PlacementContext, ranks: Ranks, shared: Groups = ()) -> float:
    """Returns the memory at the peak of the largest step with these adapters, as priced.

    Sites of a group in `shared` hold and optimise one pair.
    """
    priced, own = context.facts.priced, context.release.shapes
    lengths = priced.lengths(context.largest)
    there = priced.ranks(own, ranks)
    shapes = priced.shapes(own)
    peak = memory_peak_bytes(shapes, lengths, there, priced.bits_per_weight)
    return peak - shared_bytes(shapes, there, priced.shared(own, ranks, shared))


def memory_bytes(facts: Facts) -> float:
    """Returns the memory that a background job may take of a device."""
    return facts.profile.usable_ram.value * facts.profile.ram_gb.value * 1e9


def fits_memory(context: PlacementContext, placement: Placement) -> bool:
    """Returns whether the largest step stays within the memory that a background job may take."""
    peak = peak_bytes(context, placement.ranks, placement.shared)
    return peak <= memory_bytes(context.facts)


def tune_entries(context: PlacementContext, ranks: Ranks, *, cached: bool) -> list[Entry]:
    """Returns what the whole schedule asks of the device, every validation included."""
    facts, release, held = context.facts, context.release, context.held
    times = len(held.after)
    return [
        *tune_work(facts, release, ranks, context.batches, cached),
        *validation_work(facts, release, ranks, held.examples, (times, cached)),
    ]


def cached_bytes(context: PlacementContext) -> int:
    """Returns the bytes of a prefix cache of all examples of the tune, at any cut."""
    distinct = dict.fromkeys(example for batch in context.batches for example in batch)
    tokens = sum(len(example.tokens) for example in (*distinct, *context.held.examples))
    return cache_bytes(context.release.shapes, tokens)


def cheapest_tune(
    context: PlacementContext, placement: Placement, *, cache: bool
) -> tuple[int, list[Entry]]:
    """Returns the bytes of the prefix cache and the work of a tune, in the way of fewer joules.

    Without a cache the bytes are 0: where none is wanted, where it has no room beside the patch, or
    where it saves nothing.
    """
    facts, release, ranks = context.facts, context.release, placement.ranks
    plain = tune_entries(context, ranks, cached=False)
    size_bytes = cached_bytes(context) if cache and min(site.layer for site in ranks) > 0 else 0
    if not size_bytes or placement.size_bytes(release.shapes) + size_bytes > context.room_bytes:
        return 0, plain
    cached = tune_entries(context, ranks, cached=True)
    if joules(facts, plain) <= joules(facts, cached):
        return 0, plain
    return size_bytes, cached
