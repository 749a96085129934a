"""Filling at true costs: GradCut against brute force on toys of a few candidate sites.

Measured over 400 toys of up to 10 candidates, 203 with room for a plan: 1.0 of the brute force
optimum in all of them. Without the search of every set, as beyond 12 candidates, against that
search as the oracle: of 195 toys of up to 12 candidates one below 0.98, at 0.83; of 103 of up to 14
three, the worst at 0.60. So what is claimed at true costs is claimed up to 12 candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.placement.gradcut import GradCut
from clients.placement.knapsack import best_of_all, in_order, topped_up, total
from clients.placement.site_costs import every_site_j
from clients.tuning.context import PlacementContext
from clients.tuning.footprint import cheapest_tune, fits_memory, joules, peak_bytes
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.adapters.patch import Placement
from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.cohort.suspension import current_compute
from fleettune.cost.pricing import PricedModel
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import ProbeResult
from fleettune.releases.manifest import Manifest
from fleettune.shapes import MODULES, Shapes, Site, order
from tests.clients.phone import HALF as RULE
from tests.clients.phone import PROFILE

WORLD = SyntheticData(users=1).open()
RANK = 4


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A device, a tiny backbone and what its probe found at a few sites."""

    rule: GradCut
    context: PlacementContext

    @property
    def worth(self) -> dict[Site, float]:
        return dict(self.context.probed[0].benefit)

    def placed(self) -> float:
        """The sum of benefits of what the rule places."""
        found = self.rule.place(self.context)
        return 0.0 if isinstance(found, str) else total(self.worth, found.sites)

    def fits(self, sites: tuple[Site, ...]) -> bool:
        """The stated limits at the true costs of a plan: joules, memory, quota, bytes of patch."""
        context, shapes = self.context, self.context.release.shapes
        placement = Placement(sites=sites, rank=RANK, alpha=8.0)
        cache_bytes, entries = cheapest_tune(context, placement, cache=self.rule.prefix_cache)
        size_bytes = placement.size_bytes(shapes)
        every = 4 * shapes.layers * RANK * sum(map(sum, shapes.matrices().values()))
        return (
            joules(context.facts, entries)
            <= (1 + 1e-9) * self.rule.budget * every_site_j(context, RANK)
            and fits_memory(context, placement)
            and size_bytes + cache_bytes <= context.room_bytes
            and size_bytes <= self.rule.patch * every
        )

    def optimum(self) -> float:
        """The largest sum of benefits of any set of sites that fits, by trying them all."""
        sites = sorted(self.worth, key=order)
        sets = chain.from_iterable(combinations(sites, k) for k in range(1, len(sites) + 1))
        values = ((total(self.worth, chosen), chosen) for chosen in sets)
        # from the most valuable set down, so that the first that fits is the best
        ranked = sorted(values, key=lambda one: -one[0])
        return next((value for value, chosen in ranked if self.fits(chosen)), 0.0)


def toy_of(seed: int, most: int = 8) -> Toy:
    """A random toy: shapes, candidates, benefits, pricing, budget, memory, quota and patch."""
    rng = np.random.default_rng(seed)
    layers, hidden = int(rng.integers(2, 7)), int(rng.choice([16, 32, 64]))
    shapes = Shapes(
        hidden=hidden,
        layers=layers,
        heads=2,
        kv_heads=int(rng.choice([1, 2])),
        head_dim=hidden // 2,
        ffn=hidden * int(rng.integers(1, 4)),
        vocab=512,
    )
    sites = [Site(layer, module) for layer in range(layers) for module in MODULES]
    near = sites[-14:] if rng.random() < 0.5 else sites
    count = int(rng.integers(2, most + 1))
    chosen = [near[int(place)] for place in rng.choice(len(near), count, replace=False)]
    sides = {site: sum(shapes.matrices()[site.module]) for site in chosen}
    # by chance, or nearly as the costs are, where a knapsack is hardest
    by_cost = rng.random() < 0.5
    values = [
        sides[site] * rng.uniform(0.9, 1.1) if by_cost else rng.lognormal(0, 1)
        for site in sorted(chosen, key=order)
    ]
    worth = dict(zip(sorted(chosen, key=order), values, strict=True))
    rule = replace(
        RULE,
        budget=float(rng.uniform(0.3, 1.0)),
        prefix_cache=bool(rng.integers(2)),
        patch=float(rng.choice([1.0, rng.uniform(0.02, 0.5)])),
    )
    return Toy(rule=rule, context=context_of(rng, shapes, worth))


def context_of(
    rng: np.random.Generator, shapes: Shapes, worth: dict[Site, float]
) -> PlacementContext:
    """A device with a tune to come; memory or quota binds now and then."""
    priced = str(rng.choice(["own", "llama-3.2-1b", "smollm2-360m"]))
    facts = Facts(
        device=0,
        user=0,
        seed=5,
        profile=PROFILE,
        priced=PricedModel(model=priced),
    )
    drawn = rng.integers(8, 40, (int(rng.integers(1, 16)), 2)).tolist()
    batches = tuple(
        tuple(Example(tokens=(step, *range(1, length)), prompt=4) for length in lengths)
        for step, lengths in enumerate(drawn)
    )
    size_bytes = 4 * RANK * shapes.layers * sum(map(sum, shapes.matrices().values()))
    room_bytes = 10**9
    if rng.random() < 0.3:
        room_bytes = int(size_bytes * rng.uniform(0.02, 0.6)) + 20_000 * int(rng.integers(2))
    found = {site: np.full((2, 2), np.sqrt(value / 4), np.float32) for site, value in worth.items()}
    probed = ProbeResult(
        benefit={s: float(np.square(a, dtype=np.float64).sum()) for s, a in found.items()},
        gradients=found,
    )
    context = PlacementContext(
        facts=facts,
        release=Manifest(
            version=0,
            name="toy",
            path="",
            digest="",
            size_bytes=2 * shapes.parameters,
            shapes=shapes,
            template="pocket",
            max_tokens=64,
        ),
        tuning=Tuning(steps=len(batches), batch=2, learning_rate=1e-2, clip=1.0),
        compute=current_compute(),
        batches=batches,
        largest=(39, 39),
        room_bytes=room_bytes,
        probed=(probed,),
    )
    if rng.random() < 0.3:
        every = {Site(layer, m): RANK for layer in range(shapes.layers) for m in MODULES}
        least, most = (
            peak_bytes(context, ranks) for ranks in ({Site(shapes.layers - 1, "down"): RANK}, every)
        )
        needed = least + (most - least) * rng.uniform(0, 1.1)
        gb = needed / 1e9 / PROFILE.usable_ram.value
        profile = replace(PROFILE, ram_gb=replace(PROFILE.ram_gb, value=gb, low=gb / 2))
        context = replace(context, facts=replace(facts, profile=profile))
    return context


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 100_000))
def test_a_plan_is_the_brute_force_optimum_at_true_costs(seed: int) -> None:
    toy = toy_of(seed)
    found = toy.rule.place(toy.context)
    assert isinstance(found, str) or toy.fits(found.sites)
    # stricter than the 98 % that were asked for: sums of the same numbers in the same order
    assert toy.placed() == toy.optimum()


def test_toys_are_no_trivial_ones() -> None:
    toys = [toy_of(seed) for seed in range(40)]
    shares = [toy.placed() / total(toy.worth, toy.worth) for toy in toys]
    assert sum(0 < share < 1 for share in shares) >= 10
    assert sum(share == 1 for share in shares) >= 3


def test_a_plan_that_bounds_of_costs_refuse_is_found() -> None:
    toy = toy_of(0)
    # the cheapest single site and a hair: its cut's bound counts the whole layer
    context = replace(toy.context, room_bytes=10**9)
    site = Site(context.release.shapes.layers - 1, "down")
    alone = Placement(sites=(site,), rank=RANK, alpha=8.0)
    _, entries = cheapest_tune(context, alone, cache=False)
    share = joules(context.facts, entries) / every_site_j(context, RANK)
    rule = replace(RULE, budget=share * 1.0001, prefix_cache=False)
    probed = ProbeResult(benefit={site: 1.0}, gradients={site: np.ones((1, 1), np.float32)})
    assert rule.place(replace(context, probed=(probed,))) == alone


@pytest.mark.parametrize("limit", [3, 4, 5, 9])
def test_every_set_is_looked_at(limit: int) -> None:
    # values 5, 4, 3 for costs 5, 2, 2: one by one 5 keeps the others out of a limit of 5 or 6
    q, k, v = (Site(0, module) for module in "qkv")
    worth, cost = {q: 5.0, k: 4.0, v: 3.0}, {q: 5, k: 2, v: 2}
    found = best_of_all(worth, lambda sites: sum(cost[s] for s in sites) <= limit, frozenset())
    assert found == {3: {k}, 4: {k, v}, 5: {k, v}, 9: {q, k, v}}[limit]
    assert best_of_all(worth, lambda _: False, frozenset({v})) == {v}


def test_sites_are_taken_while_they_fit() -> None:
    sites = [Site(layer, "q") for layer in range(20)]
    assert in_order(sites, lambda taken: len(taken) <= 3) == set(sites[:3])
    assert in_order(sites, lambda _: False) == frozenset()
    # eight refusals end it, so the last sites are not asked about
    even = topped_up(frozenset(), sites, lambda taken: all(s.layer % 2 for s in taken))
    assert even == {site for site in sites if site.layer % 2 and site.layer < 15}


def test_shapes_of_the_built_in_model_have_more_candidates_than_are_searched() -> None:
    assert len(MODULES) * read_shapes(POCKET_FOLDER).layers > 12
