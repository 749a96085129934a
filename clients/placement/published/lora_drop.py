"""LoRA-drop: sites whose adapters give much keep their own, the others of a type share one.

Source: LoRA-drop, COLING 2025 (aclanthology 2025.coling-main.371), norm and threshold as recalled
(docs/methods.md#lora-drop). Adapters at every site are trained for a few steps. A site's importance
is the squared norm of what its adapter gives on the device's own examples. Within a module type the
fewest sites, largest first, that together hold a share of the type's sum stay dedicated. The tune
then starts anew. Deviations: shares are taken per module type, as only matrices of one shape can
share a pair; a shared pair has scale vectors per site, as every tied pair here has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from clients.placement.rules import EverySite, check_adapters
from clients.tuning.context import Hindered, PlacementContext, Preparation
from clients.tuning.footprint import memory_bytes, peak_bytes
from clients.work.stage_work import placing_work, validation_work
from fleettune.adapters.factors import Tie, check_tied_alpha
from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.cost.ledger import Stage
from fleettune.jobs.jobs import OutputNormJob, TuneJob
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site, order


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraDrop:
    """Dedicated adapters by output norm after a short tune, one shared pair per type below.

    Attributes:
        rank: Rank of every adapter, dedicated or shared.
        alpha: Their alpha.
        warm_up_steps: Optimizer steps of the short tune, with the tuning's batch, rate and clip.
        threshold: Share of a type's summed importance that dedicated sites hold; 0.9.

    Raises:
        ValueError: If a value breaks its rule.
    """

    rank: int
    alpha: float
    warm_up_steps: int
    threshold: float

    def __post_init__(self) -> None:
        if self.warm_up_steps < 1:
            raise ValueError(f"placement.warm_up_steps must be >= 1, got {self.warm_up_steps}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"placement.threshold must be > 0 and <= 1, got {self.threshold}")
        check_tied_alpha(self.alpha)

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if rank or alpha do not fit the model."""
        check_adapters(shapes, self.rank, self.alpha)

    def prepare(self, context: PlacementContext) -> Preparation | Hindered:
        """Returns every site's importance, or ``over_memory`` where every site does not fit."""
        facts, release, tuning = context.facts, context.release, context.tuning
        everywhere = EverySite(rank=self.rank, alpha=self.alpha).on(release.shapes)
        peak = peak_bytes(context, everywhere.ranks)
        if peak > memory_bytes(facts):
            return Hindered(reason="over_memory")
        keys = (facts.device, release.version)
        rng = stream(facts.seed, Purpose.PLACEMENT, *keys, 0)
        short = replace(tuning, steps=self.warm_up_steps, epochs=None, holdout=0.0, patience=None)
        batches = short.batches(context.training, stream(facts.seed, Purpose.PLACEMENT, *keys, 1))
        job = TuneJob(
            release=release.path,
            start=new_patch(everywhere, release.shapes, release.version, rng),
            batches=batches,
            learning_rate=tuning.learning_rate,
            clip=tuning.clip,
        )
        patch, ranks, seen = context.compute.tune(job).patch, everywhere.ranks, context.training
        found = context.compute.measure_outputs(
            OutputNormJob(release=release.path, patch=patch, examples=seen)
        )
        looking = validation_work(facts, release, ranks, seen, (1, False))
        return Preparation(
            patch=patch,
            scores=found.squares,
            entries=[
                *placing_work(facts, release, ranks, batches),
                *((Stage.PROBE, phase, amount) for _, phase, amount in looking),
            ],
            peak_bytes=peak,
        )

    def place(self, context: PlacementContext) -> Placement | Hindered:
        """Returns the placement by importance; ``untrained`` where there was no short tune."""
        if context.preparation.patch is None:
            return Hindered(reason="untrained")
        return self.place_by_scores(context.preparation.scores)

    def place_by_scores(self, scores: Mapping[Site, float]) -> Placement:
        """Returns the placement that follows from every site's importance."""
        own: list[Site] = []
        ties: list[Tie] = []
        for module in MODULES:
            mine = {site: value for site, value in scores.items() if site.module == module}
            kept = _important(mine, self.threshold)
            rest = tuple(sorted(mine.keys() - set(kept), key=order))
            if len(rest) == 1:
                kept, rest = [*kept, *rest], ()
            own += kept
            if rest:
                ties.append(Tie(sites=rest, rank=self.rank, alpha=self.alpha))
        sites = tuple(sorted(own, key=order))
        return Placement(sites=sites, rank=self.rank, alpha=self.alpha, ties=tuple(ties))

    def start(self, preparation: Preparation, fresh: Patch) -> Patch:
        """Returns the untrained patch: the tune starts anew."""
        return fresh


def _important(scores: Mapping[Site, float], threshold: float) -> list[Site]:
    """Returns the fewest sites, largest first, that hold a share of the sum; all where it is 0."""
    ranked = sorted(scores, key=lambda site: (-scores[site], order(site)))
    wanted = threshold * sum(scores.values())
    kept: list[Site] = []
    for site in ranked:
        if kept and sum(scores[one] for one in kept) >= wanted:
            break
        kept.append(site)
    return kept if wanted > 0 else ranked
