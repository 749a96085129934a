"""What each adapter adds to a tune on this device, and what each cut costs without any.

Source: docs/methods.md#gradcut-by-joule-costs.

Costs have three dimensions: joules of the whole tune (to build, write and read a prefix cache
included, and the device's idle draw meanwhile), bytes of memory at the peak of its largest step,
and bytes in storage (patch and cache). All are upper bounds that add: the true cost of a set of
sites is at most its cut's plus the sum of its sites'. Joules are exact where one resource binds
every phase. Memory counts the saved inputs of all matrices at or above the cut, adapted or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from clients.placement.knapsack import Costs, Cut
from clients.tuning.context import PlacementContext
from clients.tuning.footprint import cached_bytes, joules, peak_bytes, tune_entries
from fleettune.cost.ledger import Stage
from fleettune.cost.memory import ADAPTER_STATE_BYTES
from fleettune.cost.work import ACTIVATION_BYTES, Work, backward_work, forward_work
from fleettune.cost.workload import Amount, Entry, Phase, computing
from fleettune.data.tokens import Example
from fleettune.shapes import MODULES, Site

Pass = Callable[..., Work]
"""`forward_work` or `backward_work`."""


def every_site_j(context: PlacementContext, rank: int) -> float:
    """Returns the joules of the same tune with an adapter at every site and no cache."""
    shapes = context.release.shapes
    ranks = {Site(layer, module): rank for layer in range(shapes.layers) for module in MODULES}
    return joules(context.facts, tune_entries(context, ranks, cached=False))


def site_costs(context: PlacementContext, rank: int) -> Mapping[Site, Costs]:
    """Returns what an adapter of a rank adds at every site."""
    own, priced = context.release.shapes, context.facts.priced
    shapes = priced.shapes(own)
    one_j = {module: _module_j(context, module, rank) for module in MODULES}
    tokens = sum(priced.lengths(context.largest))
    found: dict[Site, Costs] = {}
    for layer in range(own.layers):
        for module in MODULES:
            site = Site(layer, module)
            times = len(priced.ranks(own, {site: rank}))
            sides = sum(shapes.matrices()[module])
            memory = times * rank * (ADAPTER_STATE_BYTES * sides + ACTIVATION_BYTES * tokens)
            stored = 4.0 * rank * sum(own.matrices()[module])
            found[site] = (times * one_j[module], memory, stored)
    return found


def cut_j(context: PlacementContext, depth: int, *, cached: bool) -> float:
    """Returns the joules of a tune whose lowest adapter is in a layer, less those of adapters.

    Args:
        context: Device and tune.
        depth: The layer.
        cached: True if the device keeps the hidden states below it.
    """

    def entries(rank: int) -> list[Entry]:
        ranks = {Site(depth, module): rank for module in MODULES}
        return tune_entries(context, ranks, cached=cached)

    # everything that an adapter costs is linear in its rank, so this is the cost at rank 0
    bare = [
        (stage, phase, _at_rank_0(one, two))
        for (stage, phase, one), (_, _, two) in zip(entries(1), entries(2), strict=True)
    ]
    return joules(context.facts, bare)


def cut_bytes(context: PlacementContext, depth: int) -> float:
    """Returns the peak memory with all inputs kept down to a layer, less that of adapters."""
    above = range(depth, context.release.shapes.layers)
    one, two = (
        peak_bytes(context, {Site(layer, module): rank for layer in above for module in MODULES})
        for rank in (1, 2)
    )
    return 2 * one - two


def all_cuts(context: PlacementContext, depths: Sequence[int], *, cache: bool) -> list[Cut]:
    """Returns every cut without a prefix cache and, where it is allowed, with one."""
    stored = float(cached_bytes(context))
    found: list[Cut] = []
    for depth in depths:
        memory = cut_bytes(context, depth)
        plain_j = cut_j(context, depth, cached=False)
        found.append(Cut(depth=depth, costs=(plain_j, memory, 0.0)))
        if cache and depth > 0:
            cached_j = cut_j(context, depth, cached=True)
            found.append(Cut(depth=depth, costs=(cached_j, memory, stored)))
    return found


def _at_rank_0(one: Amount, two: Amount) -> Amount:
    return Amount(
        flop=max(0.0, 2 * one.flop - two.flop),
        moved_bytes=max(0.0, 2 * one.moved_bytes - two.moved_bytes),
        bursts=one.bursts,
    )


def _module_j(context: PlacementContext, module: str, rank: int) -> float:
    """Returns the joules that one adapter of a priced layer adds, above the lowest layer."""
    facts, held = context.facts, context.held
    shapes = replace(facts.priced.shapes(context.release.shapes), layers=2)

    def added(work: Pass, batches: Sequence[Sequence[Example]]) -> Amount:
        tokens = sum(
            length
            for batch in batches
            for length in facts.priced.lengths([len(example.tokens) for example in batch])
        )
        below = {Site(0, name): 1 for name in MODULES}
        without = work(shapes, [tokens], 0, below, passes=len(batches))
        adapted = work(shapes, [tokens], 0, {**below, Site(1, module): rank}, passes=len(batches))
        moved_bytes = adapted.traffic_bytes - without.traffic_bytes
        return computing(Work(flop=adapted.flop - without.flop, traffic_bytes=moved_bytes))

    entries: list[Entry] = [
        (Stage.TUNE, Phase.FORWARD, added(forward_work, context.batches)),
        (Stage.TUNE, Phase.BACKWARD, added(backward_work, context.batches)),
    ]
    if held.after:
        validated = [held.examples] * len(held.after)
        entries.append((Stage.TUNE, Phase.FORWARD, added(forward_work, validated)))
    return joules(facts, entries)
