"""GradCut as released (METHODS A1.1): scores, pruning, depth outliers, dedicated or shared.

The decisions of both phases as functions of the trained scale vectors; `clients.placement.gradcut_released_rule`
trains them.

Phase 1 trains one pair per module type with vectors u (rank) and v (outputs) per site and drops
sites in steps; phase 2 removes depth outliers and gives dedicated adapters to sites whose score
stands out. Deviations, all named in METHODS A1.3: the base stays frozen in phase 1, a step
prunes below what is to be kept only with `overshoot`, as released, and equal scores or depths are
mapped to 0 where the released code divides by zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.placement.rules import ATTENTION
from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Placement
from fleettune.shapes.sites import MODULES, Site, order

Vectors = Mapping[Site, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""By site: u ``(rank,)`` and v ``(n_out,)``."""
WARM_UP = 5
"""Optimizer steps of phase 1 before the first sites may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedRecipe:
    """The released method's numbers; its defaults for Qwen2.5-0.5B stand behind each.

    Attributes:
        rank: Rank of a dedicated adapter; 4.
        alpha: Its alpha; 8.
        shared_rank: Rank of the pair that a module type shares; 16.
        shared_alpha: Its alpha; 32.
        keep_attention: Layers that keep each attention matrix; 18 of 24.
        keep_feed_forward: The same of gate, up and down; 14 of 24.
        prune_step: Sites of a type that go in one step; 3.
        prune_interval: Optimizer steps between two of those; 10.
        weight_importance: Weight of the score; 1.
        weight_cost: Weight of the depth; 2.
        overshoot: True to drop `prune_step` sites also where fewer are to go, as released.
    """

    rank: int
    alpha: float
    shared_rank: int
    shared_alpha: float
    keep_attention: int
    keep_feed_forward: int
    prune_step: int
    prune_interval: int
    weight_importance: float
    weight_cost: float
    overshoot: bool

    def __post_init__(self) -> None:
        for name in ("keep_attention", "keep_feed_forward", "prune_step", "prune_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    def keep(self, module: str) -> int:
        """Returns how many sites of a module type phase 1 keeps."""
        return self.keep_attention if module in ATTENTION else self.keep_feed_forward

    def steps(self, layers: int) -> int:
        """Returns phase 1's optimizer steps: 41 as released."""
        least = min(self.keep_attention, self.keep_feed_forward)
        return math.ceil((layers - least) / self.prune_step) * self.prune_interval + 1

    def prunes_after(self, step: int, layers: int) -> bool:
        """Returns whether sites are dropped after an optimizer step, counted from 0."""
        due = step >= WARM_UP and step % self.prune_interval == 0
        return due and step < self.steps(layers)


def released_scores(vectors: Vectors) -> dict[Site, float]:
    """Returns ``||u|| + ||v||`` of every site."""
    return {
        site: float(np.linalg.norm(u)) + float(np.linalg.norm(v))
        for site, (u, v) in vectors.items()
    }


def dropped(scores: Mapping[Site, float], layers: int, recipe: ReleasedRecipe) -> tuple[Site, ...]:
    """Returns the sites that one step of phase 1 drops among the active ones of one module type.

    The key is ``w_I s - w_C c`` with score s and cost c = layers - layer, both scaled to 0 to 1
    over the active sites; the smallest keys go.

    Args:
        scores: Score of every active site of the type.
        layers: Layers of the model.
        recipe: Weights, step, what is to be kept, and whether to overshoot.
    """
    spare = len(scores) - recipe.keep(next(iter(scores)).module)
    if spare <= 0:
        return ()
    # a type that lost all its sites would have nothing to scale
    spare = len(scores) - 1 if recipe.overshoot else spare
    count = min(recipe.prune_step, spare)
    benefit = scaled(scores)
    cost = scaled({site: float(layers - site.layer) for site in scores})
    keys = {
        site: recipe.weight_importance * benefit[site] - recipe.weight_cost * cost[site]
        for site in scores
    }
    return tuple(sorted(keys, key=lambda site: (keys[site], order(site)))[:count])


def depth_outliers(sites: Sequence[Site], layers: int) -> frozenset[int]:
    """Returns the layers whose scaled depth is above mean + 2 deviations over all sites.

    Depth is layers - layer; the deviation is the population's. An adapter there would lead the
    backward pass far down for few sites.
    """
    depth = scaled({site: float(layers - site.layer) for site in sites})
    values = np.array(list(depth.values()))
    limit = float(values.mean() + 2 * values.std())
    return frozenset(site.layer for site in sites if depth[site] > limit)


def placed_released(scores: Mapping[Site, float], layers: int, recipe: ReleasedRecipe) -> Placement:
    """Returns phase 2's placement of the sites that survived phase 1.

    Per module type a site whose scaled score is above mean + 0.25 deviations (the sample's) of the
    type is dedicated, the others share the type's pair; one alone is dedicated, having nobody to
    share with.
    """
    outliers = depth_outliers(list(scores), layers)
    dedicated: list[Site] = []
    ties: list[Tie] = []
    for module in MODULES:
        mine = {s: v for s, v in scores.items() if s.module == module and s.layer not in outliers}
        above = _above(mine)
        rest = tuple(sorted(mine.keys() - above, key=order))
        if len(rest) == 1:
            above, rest = above | set(rest), ()
        dedicated += above
        if rest:
            ties.append(Tie(sites=rest, rank=recipe.shared_rank, alpha=recipe.shared_alpha))
    sites = tuple(sorted(dedicated, key=order))
    return Placement(sites=sites, rank=recipe.rank, alpha=recipe.alpha, ties=tuple(ties))


def scaled(values: Mapping[Site, float]) -> dict[Site, float]:
    """Returns values scaled to 0 to 1; all 0 where they are equal."""
    low, high = min(values.values()), max(values.values())
    span = high - low
    return {site: (value - low) / span if span > 0 else 0.0 for site, value in values.items()}


def _above(scores: Mapping[Site, float]) -> set[Site]:
    if len(scores) < 2:
        return set(scores)
    relative = scaled(scores)
    values = np.array(list(relative.values()))
    limit = float(values.mean() + 0.25 * values.std(ddof=1))
    return {site for site in scores if relative[site] > limit}
