"""GradCut as released, as a placement rule: it trains at every site before it places.

Phase 1 trains one pair per module type, tied over all layers with vectors u and v per site, and
drops sites in steps; phase 2 places by what is left (`clients.placement.gradcut_released`), with shared
pairs and their vectors as phase 1 left them and dedicated adapters fresh. The tune that follows is
every other placement's.

Deviations, besides those that `clients.placement.gradcut_released` names: rate, clip and batch of phase 1
are the tuning's, without linear decay, dropout or 8-bit optimizer; the optimizer starts anew after
every pruning, as each stretch is a tune of its own; dedicated adapters have no u and v, which a
pair of their own makes superfluous. Layers to keep and to drop are shares of the model's layers,
rounded half up, at least 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from clients.placement.gradcut_released import (
    ReleasedRecipe,
    dropped,
    placed_released,
    released_scores,
)
from clients.placement.rules import PlacementContext, Trained, check_adapters
from clients.tuning.footprint import memory_bytes, peak_bytes
from clients.tuning.schedule import Tuning
from clients.work import stage_work as charges
from fleettune.adapters.factors import Tie, check_tied_alpha
from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.cost.work import Shapes
from fleettune.cost.workload import Entry
from fleettune.jobs.jobs import Compute, TuneJob
from fleettune.seeds import Purpose, stream
from fleettune.shapes.sites import MODULES, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class GradCutReleased:
    """EdgeTune's GradCut in two phases (METHODS A1.1), the base frozen in both.

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

    def recipe(self, layers: int) -> ReleasedRecipe:
        """Returns the numbers for a model of so many layers."""

        def of(share: float) -> int:
            return max(1, math.floor(share * layers + 0.5))

        return ReleasedRecipe(
            rank=self.rank,
            alpha=self.alpha,
            shared_rank=self.shared_rank,
            shared_alpha=self.shared_alpha,
            keep_attention=of(self.keep_attention),
            keep_feed_forward=of(self.keep_feed_forward),
            prune_step=of(self.prune_share),
            prune_interval=self.prune_interval,
            weight_importance=self.weight_importance,
            weight_cost=self.weight_cost,
            overshoot=self.overshoot,
        )

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if a rank or alpha does not fit the model, or it has one layer only."""
        check_adapters(shapes, self.rank, self.alpha)
        check_adapters(shapes, self.shared_rank, self.shared_alpha)
        if shapes.layers < 2:
            raise ValueError(
                f"placement=gradcut_released needs 2 layers that share, got {shapes.layers}"
            )

    def train(self, context: PlacementContext, tuning: Tuning, compute: Compute) -> Trained | str:
        """Returns phase 1's patch and scores, or ``over_memory`` where it does not fit."""
        facts, release = context.facts, context.release
        layers = release.shapes.layers
        recipe, patch = self.recipe(layers), self._everywhere(context)
        peak = peak_bytes(context, patch.ranks, patch.shared)
        if peak > memory_bytes(facts):
            return "over_memory"
        steps = recipe.steps(layers)
        rng = stream(facts.seed, Purpose.PLACEMENT, facts.device, release.version, 1)
        schedule = replace(tuning, steps=steps, epochs=None, holdout=0.0, patience=None)
        batches = schedule.batches(context.training, rng)
        ends = [step + 1 for step in range(steps) if recipe.prunes_after(step, layers)]
        entries: list[Entry] = []
        for start, end in itertools.pairwise(sorted({0, *ends, steps})):
            part = batches[start:end]
            entries += charges.before_placing(facts, release, patch.ranks, part)
            patch = compute.tune(
                TuneJob(
                    release=release.path,
                    start=patch,
                    batches=part,
                    learning_rate=tuning.learning_rate,
                    clip=tuning.clip,
                )
            ).patch
            patch = _pruned(patch, layers, recipe) if end in ends else patch
        return Trained(patch=patch, scores=_scores(patch), entries=entries, peak_bytes=peak)

    def place(self, context: PlacementContext) -> Placement | str:
        """Returns phase 2's placement; ``untrained`` where there was no phase 1."""
        if context.trained is None:
            return "untrained"
        layers = context.release.shapes.layers
        return placed_released(context.trained.scores, layers, self.recipe(layers))

    def start(self, trained: Trained, fresh: Patch) -> Patch:
        """Returns the untrained patch with shared pairs and vectors as phase 1 left them."""
        learned = {_module(tied.vectors): tied for tied in trained.patch.ties}
        ties = tuple(
            replace(
                learned[_module(tied.vectors)],
                vectors={site: learned[site.module].vectors[site] for site in tied.vectors},
            )
            for tied in fresh.ties
        )
        return replace(fresh, ties=ties)

    def smaller(self, placement: Placement) -> Placement | None:
        """Returns None: phase 1 took more memory than any placement of phase 2."""
        return None

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


def _pruned(patch: Patch, layers: int, recipe: ReleasedRecipe) -> Patch:
    """Returns a patch without the sites that one step of phase 1 drops."""
    scores = _scores(patch)
    gone = {
        site
        for tied in patch.ties
        for site in dropped({s: scores[s] for s in tied.vectors}, layers, recipe)
    }
    ties = tuple(
        replace(tied, vectors={s: pair for s, pair in tied.vectors.items() if s not in gone})
        for tied in patch.ties
    )
    return replace(patch, ties=ties)


def _scores(patch: Patch) -> dict[Site, float]:
    return released_scores({s: pair for tied in patch.ties for s, pair in tied.vectors.items()})


def _module(sites: Collection[Site]) -> str:
    return next(iter(sites)).module
