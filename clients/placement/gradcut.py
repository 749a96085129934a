"""GradCut by joule: adapters where a probe's gradients buy most per joule on this device.

Ours (docs/methods.md#gradcut-by-joule-the-cut), after the idea of EdgeTune's GradCut. A probe
measures the gradient at every site. Joules and bytes come from the device's own profile at the
priced shapes. The rule takes the cut, and the sites at or above it, with the largest sum of
benefits that a budget of joules, the memory and the quota allow, by bounds of the sites' costs
(`clients.placement.knapsack`). It then adds what true costs leave room for. Among up to 12
candidates it looks at every set, at its true costs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from clients.placement.benefits import (
    BENEFITS,
    benefits,
    group_aligned,
    probe_patch,
    probing_jobs,
    run_probes,
    sum_gradients,
)
from clients.placement.knapsack import (
    Costs,
    SiteItem,
    best_items,
    best_sites,
    fill_up,
)
from clients.placement.rules import check_adapters
from clients.placement.site_costs import all_cuts, every_site_j, site_costs
from clients.tuning.context import Hindered, PlacementContext, Preparation
from clients.tuning.footprint import cheapest_tune, fits_memory, joules, memory_bytes, peak_bytes
from fleettune.adapters.factors import Tie, check_tied_alpha
from fleettune.adapters.patch import Placement
from fleettune.jobs.jobs import ProbeJob
from fleettune.shapes import MODULES, Shapes, Site, order

CHEAPEST, REFUSE = OVER_BUDGET = ("cheapest", "refuse")
"""What a rule may do where its budget is below the joules of every tune."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradCut:
    """Places the sites with the largest sum of benefits within a budget of joules.

    All of them lie at or above one cut. The sum is the largest by the bounds of the sites' costs,
    and by their true costs among up to 12 candidates.

    Attributes:
        rank: Rank of every adapter, dedicated or shared.
        alpha: Their alpha.
        budget: Joules of the tune, building the prefix cache included, as a share of what the same
            tune would take with an adapter of this rank at every site and no cache; 0 to 1.
        benefit: ``gradient`` or ``fisher`` (`clients.placement.benefits.benefits`).
        probe_rank: Rank of the probe's adapters.
        probe_batches: Batches of the tune that the probe looks at.
        share_above: Alignment of gradients from which sites of a module type share one pair, each
            with scale vectors of its own; None: none do.
        prefix_cache: Whether the tune keeps a prefix cache (docs/methods.md#prefix-cache) where the
            quota allows and it saves joules.
        over_budget: What happens where the budget is below what adapters at the last layer take:
            ``cheapest``: those joules are the budget; ``refuse``: the device does not tune.
        patch: Largest patch, as a share of the bytes of one with an adapter of this rank at every
            site; above 0 to 1.

    Raises:
        ValueError: If a value breaks its rule.
    """

    rank: int
    alpha: float
    budget: float
    benefit: str
    probe_rank: int
    probe_batches: int
    share_above: float | None
    prefix_cache: bool
    patch: float = 1.0
    over_budget: str = CHEAPEST

    def __post_init__(self) -> None:
        _check_share("budget", self.budget)
        _check_share("patch", self.patch)
        if self.over_budget not in OVER_BUDGET:
            raise ValueError(
                f"placement.over_budget must be one of {OVER_BUDGET}, got {self.over_budget!r}"
            )
        if self.benefit not in BENEFITS:
            raise ValueError(f"placement.benefit must be one of {BENEFITS}, got {self.benefit!r}")
        if self.probe_batches < 1:
            raise ValueError(f"placement.probe_batches must be >= 1, got {self.probe_batches}")
        if self.share_above is not None and not 0 < self.share_above <= 1:
            raise ValueError(
                f"placement.share_above must be null, or > 0 and <= 1, got {self.share_above}"
            )
        if self.share_above is not None:
            check_tied_alpha(self.alpha)

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if a rank or alpha does not fit the model."""
        check_adapters(shapes, self.rank, self.alpha)
        check_adapters(shapes, self.probe_rank, 1.0)

    def probes(self, context: PlacementContext) -> Sequence[ProbeJob]:
        """Returns the probes: one of all batches, or for Fisher information one per batch.

        Candidates are the sites at or above the deepest cut whose probe fits the memory and whose
        tune, before any adapter, fits the budget.
        """
        own = context.release.shapes
        depth = max(_lowest_in_memory(context, self.probe_rank), self._lowest_in_budget(context))
        if depth == own.layers:
            return ()
        seed, version = context.facts.seed, context.release.version
        patch = probe_patch(seed, own, version, depth, self.probe_rank)
        batches = context.batches[: self.probe_batches]
        return probing_jobs(context.release.path, patch, batches, self.benefit)

    def prepare(self, context: PlacementContext) -> Preparation:
        """Runs the probes."""
        return run_probes(context, self.probes(context))

    def place(self, context: PlacementContext) -> Placement | Hindered:
        """Returns the best cut's sites, or what leaves no room for any.

        The reasons: ``over_memory`` where not even a probe of the last layer fits,
        ``no_benefit`` where no gradient is above zero, ``over_budget`` otherwise: where the patch
        has no room, or by ``refuse``.
        """
        probed = context.preparation.probed
        if not probed:
            is_dear = self._lowest_in_budget(context) == context.release.shapes.layers
            return Hindered(reason="over_budget" if is_dear else "over_memory")
        found = benefits(probed, self.benefit)
        worth = {site: value for site, value in found.items() if value > 0}
        if not worth:
            return Hindered(reason="no_benefit")
        return self._best_placement(worth, context) or Hindered(reason="over_budget")

    def allows(self, context: PlacementContext, placement: Placement) -> bool:
        """Returns whether a placement stays within budget, memory and room of a tune."""
        return self._fits(context, placement, self._limit_j(context))

    def keeps(
        self, context: PlacementContext, whole: PlacementContext, placement: Placement
    ) -> bool:
        """Returns whether a retune at an earlier placement stays within a whole tune's limits."""
        return self._fits(context, placement, self._limit_j(whole))

    def is_over_budget(self, context: PlacementContext, placement: Placement) -> bool:
        """Returns whether a tune at a placement takes more joules than the budget."""
        _, entries = cheapest_tune(context, placement, cache=self.prefix_cache)
        return joules(context.facts, entries) > self._budget_j(context)

    def _budget_j(self, context: PlacementContext) -> float:
        # sums in another order may differ in the last bits
        return (1 + 1e-9) * self.budget * every_site_j(context, self.rank)

    def _limit_j(self, context: PlacementContext) -> float:
        """Returns the budget or, unless that is to be refused, what the last layer takes."""
        budget_j = self._budget_j(context)
        if self.over_budget == REFUSE:
            return budget_j
        last = context.release.shapes.layers - 1
        sites = [Site(last, module) for module in MODULES]
        _, entries = cheapest_tune(context, self._placement(sites), cache=self.prefix_cache)
        return max(budget_j, (1 + 1e-9) * joules(context.facts, entries))

    def _lowest_in_budget(self, context: PlacementContext) -> int:
        """Returns the lowest layer whose cut is within the budget; if none, how many layers."""
        layers, budget_j = context.release.shapes.layers, self._limit_j(context)
        cuts = all_cuts(context, range(layers), cache=self.prefix_cache)
        within = (cut.depth for cut in cuts if cut.costs[0] <= budget_j)
        return min(within, default=layers)

    def _best_placement(
        self, worth: dict[Site, float], context: PlacementContext
    ) -> Placement | None:
        costs, budget_j = site_costs(context, self.rank), self._limit_j(context)

        def fits(sites: Collection[Site]) -> bool:
            return self._fits(context, self._placement(sites), budget_j)

        taken = self._best_by_bounds(worth, costs, context)
        if taken:
            lowest = min(site.layer for site in taken)
            rest = [site for site in worth if site.layer >= lowest and site not in taken]
            by_joule = sorted(rest, key=lambda site: (-worth[site] / costs[site][0], order(site)))
            taken = fill_up(taken, by_joule, fits)
        # an adapter alone may be bound by memory where the whole pass is not: bounds are loose
        taken = best_sites(worth, fits, taken)
        return self._tie_aligned(context, self._placement(taken), budget_j) if taken else None

    def _best_by_bounds(
        self, worth: Mapping[Site, float], costs: Mapping[Site, Costs], context: PlacementContext
    ) -> frozenset[Site]:
        """Returns the best cut's sites if every cost were its upper bound."""
        # the last dimension is the patch alone, the one before it the patch and the cache
        items = [
            SiteItem(value=value, depth=site.layer, costs=(*costs[site], costs[site][-1]))
            for site, value in worth.items()
        ]
        depths = sorted({site.layer for site in worth})
        cuts = [
            replace(cut, costs=(*cut.costs, 0.0))
            for cut in all_cuts(context, depths, cache=self.prefix_cache)
        ]
        memory, room = memory_bytes(context.facts), float(context.room_bytes)
        limits = (self._limit_j(context), memory, room, self._patch_bytes(context))
        sites = tuple(worth)
        return frozenset(sites[place] for place in best_items(items, cuts, limits))

    def _tie_aligned(
        self, context: PlacementContext, placement: Placement, budget_j: float
    ) -> Placement:
        """Ties what is aligned, group by group, where the shared pair stays within limits."""
        if self.share_above is None:
            return placement
        gradients = sum_gradients(context.preparation.probed)
        aligned = group_aligned({s: gradients[s] for s in placement.sites}, self.share_above)
        for group in aligned:
            tie = Tie(sites=group, rank=self.rank, alpha=self.alpha)
            sites = tuple(site for site in placement.sites if site not in group)
            tied = replace(placement, sites=sites, ties=(*placement.ties, tie))
            placement = tied if self._fits(context, tied, budget_j) else placement
        return placement

    def _fits(self, context: PlacementContext, placement: Placement, budget_j: float) -> bool:
        _, entries = cheapest_tune(context, placement, cache=self.prefix_cache)
        return (
            joules(context.facts, entries) <= budget_j
            and fits_memory(context, placement)
            and placement.size_bytes(context.release.shapes)
            <= min(context.room_bytes, self._patch_bytes(context))
        )

    def _patch_bytes(self, context: PlacementContext) -> float:
        shapes = context.release.shapes
        sides = sum(map(sum, shapes.matrices().values()))
        return self.patch * 4 * shapes.layers * self.rank * sides

    def _placement(self, sites: Collection[Site]) -> Placement:
        found = tuple(sorted(sites, key=order))
        return Placement(sites=found, rank=self.rank, alpha=self.alpha)


def _lowest_in_memory(context: PlacementContext, rank: int) -> int:
    """Returns the lowest layer above which every site can be probed; if none, how many layers."""
    layers, limit = context.release.shapes.layers, memory_bytes(context.facts)
    depth = layers
    while depth > 0:
        wider = {Site(layer, m): rank for layer in range(depth - 1, layers) for m in MODULES}
        if peak_bytes(context, wider) > limit:
            break
        depth -= 1
    return depth


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"placement.{name} must be > 0 and <= 1, got {value}")
