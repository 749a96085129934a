"""GradCut as released: scores, pruning, depth outliers, dedicated or shared.

Source: docs/methods.md#gradcut-released-scores-and-skipping.

Phase 1 trains one pair per module type with vectors u (rank) and v (outputs) per site and drops
sites in steps. Phase 2 removes depth outliers and gives dedicated adapters to sites whose score
stands out. Deviations, all named in docs/methods.md#gradcut-released-deviations: the base stays
frozen in phase 1; a step drops sites below what is to be kept only with `overshoot`, as released;
sites go after 11, 21, ... optimizer steps, where the released code drops them after 10, 20, ...;
the threshold of a dedicated site is computed without the depth outliers, which the released code
includes; equal scores or depths are mapped to 0 where the released code divides by zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clients.placement.rules import ATTENTION, check_adapters
from clients.tuning.context import Hindered, PlacementContext, Preparation
from clients.tuning.footprint import memory_bytes, peak_bytes
from clients.work.stage_work import placing_work
from fleettune.adapters.factors import Tie, check_tied_alpha
from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.cost.workload import Entry
from fleettune.jobs.jobs import TuneJob
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site, order

Vectors = Mapping[Site, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""By site: u ``(rank,)`` and v ``(n_out,)``."""
WARM_UP = 5
"""Optimizer steps of phase 1 before the first sites may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradCutReleased:
    """EdgeTune's GradCut in two phases, the base frozen in both.

    Source: docs/methods.md#gradcut-released-scores-and-skipping.

    Attributes:
        rank: Rank of a dedicated adapter; 4.
        alpha: Its alpha; 8.
        shared_rank: Rank of the pair that a module type shares; 16.
        shared_alpha: Its alpha; 32.
        keep_attention: Share of the layers that keep each attention matrix in phase 1; 18/24.
        keep_feed_forward: The same of gate, up and down; 14/24.
        prune_share: Share of the layers whose site of a type goes in one step; 3/24.
        prune_interval: Optimizer steps between two of those; 10.
        weight_importance: Weight of the score; 1.
        weight_cost: Weight of the depth; 2.
        overshoot: True to drop that many sites also where fewer are to go, as released.

    Raises:
        ValueError: If a share is not above 0 and at most 1, or another value breaks its rule.
    """

    rank: int
    alpha: float
    shared_rank: int
    shared_alpha: float
    keep_attention: float
    keep_feed_forward: float
    prune_share: float
    prune_interval: int
    weight_importance: float
    weight_cost: float
    overshoot: bool

    def __post_init__(self) -> None:
        for name in ("keep_attention", "keep_feed_forward", "prune_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"placement.{name} must be > 0 and <= 1, got {getattr(self, name)}"
                )
        if self.prune_interval < 1:
            raise ValueError(f"placement.prune_interval must be >= 1, got {self.prune_interval}")
        check_tied_alpha(self.shared_alpha)

    def keep(self, module: str, layers: int) -> int:
        """Returns how many sites of a module type phase 1 keeps: 18 or 14 of 24 layers."""
        share = self.keep_attention if module in ATTENTION else self.keep_feed_forward
        return _count(share, layers)

    def steps(self, layers: int) -> int:
        """Returns phase 1's optimizer steps: 41 for 24 layers, as released."""
        least = min(self.keep(module, layers) for module in MODULES)
        spare = math.ceil((layers - least) / _count(self.prune_share, layers))
        return spare * self.prune_interval + 1

    def prunes_after(self, step: int, layers: int) -> bool:
        """Returns whether sites are dropped after an optimizer step, counted from 0."""
        due = step >= WARM_UP and step % self.prune_interval == 0
        return due and step < self.steps(layers)

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if a rank or alpha does not fit the model, or it has one layer only."""
        check_adapters(shapes, self.rank, self.alpha)
        check_adapters(shapes, self.shared_rank, self.shared_alpha)
        if shapes.layers < 2:
            raise ValueError(
                f"placement=gradcut_released needs 2 layers that share, got {shapes.layers}"
            )

    def prepare(self, context: PlacementContext) -> Preparation | Hindered:
        """Returns phase 1's patch and scores, or ``over_memory`` where it does not fit."""
        facts, release, tuning = context.facts, context.release, context.tuning
        layers = release.shapes.layers
        patch = self._everywhere(context)
        peak = peak_bytes(context, patch.ranks, patch.shared)
        if peak > memory_bytes(facts):
            return Hindered(reason="over_memory")
        steps = self.steps(layers)
        rng = stream(facts.seed, Purpose.PLACEMENT, facts.device, release.version, 1)
        schedule = replace(tuning, steps=steps, epochs=None, holdout=0.0, patience=None)
        batches = schedule.batches(context.training, rng)
        ends = [step + 1 for step in range(steps) if self.prunes_after(step, layers)]
        entries: list[Entry] = []
        for start, end in itertools.pairwise(sorted({0, *ends, steps})):
            part = batches[start:end]
            entries += placing_work(facts, release, patch.ranks, part)
            patch = context.compute.tune(
                TuneJob(
                    release=release.path,
                    start=patch,
                    batches=part,
                    learning_rate=tuning.learning_rate,
                    clip=tuning.clip,
                )
            ).patch
            patch = _prune(patch, layers, self) if end in ends else patch
        return Preparation(patch=patch, scores=_scores(patch), entries=entries, peak_bytes=peak)

    def place(self, context: PlacementContext) -> Placement | Hindered:
        """Returns phase 2's placement; ``untrained`` where there was no phase 1."""
        if context.preparation.patch is None:
            return Hindered(reason="untrained")
        layers = context.release.shapes.layers
        return place_survivors(context.preparation.scores, layers, self)

    def start(self, preparation: Preparation, fresh: Patch) -> Patch:
        """Returns the untrained patch with shared pairs and vectors as phase 1 left them."""
        if preparation.patch is None:
            return fresh
        learned = {_module(tied.vectors): tied for tied in preparation.patch.ties}
        ties = tuple(
            replace(
                learned[_module(tied.vectors)],
                vectors={site: learned[site.module].vectors[site] for site in tied.vectors},
            )
            for tied in fresh.ties
        )
        return replace(fresh, ties=ties)

    def _everywhere(self, context: PlacementContext) -> Patch:
        facts, release = context.facts, context.release
        layers = range(release.shapes.layers)
        ties = tuple(
            Tie(
                sites=tuple(Site(layer, module) for layer in layers),
                rank=self.shared_rank,
                alpha=self.shared_alpha,
            )
            for module in MODULES
        )
        placement = Placement(sites=(), rank=self.rank, alpha=self.alpha, ties=ties)
        rng = stream(facts.seed, Purpose.PLACEMENT, facts.device, release.version, 0)
        return new_patch(placement, release.shapes, release.version, rng)


def score_sites(vectors: Vectors) -> dict[Site, float]:
    """Returns ``||u|| + ||v||`` of every site."""
    return {
        site: float(np.linalg.norm(u)) + float(np.linalg.norm(v))
        for site, (u, v) in vectors.items()
    }


def sites_to_drop(
    scores: Mapping[Site, float], layers: int, rule: GradCutReleased
) -> tuple[Site, ...]:
    """Returns the sites that one step of phase 1 drops among the active ones of one module type.

    The key is ``w_I s - w_C c`` with score s and cost c = layers - layer, both scaled to 0 to 1
    over the active sites; the smallest keys go.

    Args:
        scores: Score of every active site of the type.
        layers: Layers of the model.
        rule: Weights, step, what is to be kept, and whether to overshoot.
    """
    spare = len(scores) - rule.keep(next(iter(scores)).module, layers)
    if spare <= 0:
        return ()
    # a type that lost all its sites would have nothing to scale
    spare = len(scores) - 1 if rule.overshoot else spare
    count = min(_count(rule.prune_share, layers), spare)
    benefit = scale(scores)
    cost = scale({site: float(layers - site.layer) for site in scores})
    keys = {
        site: rule.weight_importance * benefit[site] - rule.weight_cost * cost[site]
        for site in scores
    }
    return tuple(sorted(keys, key=lambda site: (keys[site], order(site)))[:count])


def depth_outliers(sites: Sequence[Site], layers: int) -> frozenset[int]:
    """Returns the layers whose scaled depth is above mean + 2 deviations over all sites.

    Depth is layers - layer; the deviation is the population's. An adapter there would lead the
    backward pass far down for few sites.
    """
    depth = scale({site: float(layers - site.layer) for site in sites})
    values = np.array(list(depth.values()))
    limit = float(values.mean() + 2 * values.std())
    return frozenset(site.layer for site in sites if depth[site] > limit)


def place_survivors(scores: Mapping[Site, float], layers: int, rule: GradCutReleased) -> Placement:
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
            ties.append(Tie(sites=rest, rank=rule.shared_rank, alpha=rule.shared_alpha))
    sites = tuple(sorted(dedicated, key=order))
    return Placement(sites=sites, rank=rule.rank, alpha=rule.alpha, ties=tuple(ties))


def scale(values: Mapping[Site, float]) -> dict[Site, float]:
    """Returns values scaled to 0 to 1; all 0 where they are equal."""
    low, high = min(values.values()), max(values.values())
    span = high - low
    return {site: (value - low) / span if span > 0 else 0.0 for site, value in values.items()}


def _above(scores: Mapping[Site, float]) -> set[Site]:
    if len(scores) < 2:
        return set(scores)
    relative = scale(scores)
    values = np.array(list(relative.values()))
    limit = float(values.mean() + 0.25 * values.std(ddof=1))
    return {site for site in scores if relative[site] > limit}


def _prune(patch: Patch, layers: int, rule: GradCutReleased) -> Patch:
    """Returns a patch without the sites that one step of phase 1 drops."""
    scores = _scores(patch)
    gone = {
        site
        for tied in patch.ties
        for site in sites_to_drop({s: scores[s] for s in tied.vectors}, layers, rule)
    }
    ties = tuple(
        replace(tied, vectors={s: pair for s, pair in tied.vectors.items() if s not in gone})
        for tied in patch.ties
    )
    return replace(patch, ties=ties)


def _scores(patch: Patch) -> dict[Site, float]:
    return score_sites({s: pair for tied in patch.ties for s, pair in tied.vectors.items()})


def _module(sites: Collection[Site]) -> str:
    return next(iter(sites)).module


def _count(share: float, layers: int) -> int:
    """Returns a share of the layers, rounded half up, and one at least."""
    return max(1, math.floor(share * layers + 0.5))
