"""Random sites, as many in every layer as GradCut takes: a rival that ignores its scores.

Source: docs/methods.md#random-sites-same-profile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clients.placement.gradcut import GradCut
from clients.tuning.context import Hindered, PlacementContext, Preparation
from fleettune.adapters.patch import Placement
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site, order


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSameProfile:
    """Draws as many sites in every layer as another rule takes there, each with its own adapter.

    It probes and pays as `like` does. A draw may cost more joules than the budget of `like`, as
    other matrices have other sizes. Where it does not fit the memory, there is no tune.

    Attributes:
        like: The rule whose profile is taken over.
    """

    like: GradCut

    @property
    def prefix_cache(self) -> bool:
        """As `like`."""
        return self.like.prefix_cache

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if a rank or alpha does not fit the model."""
        self.like.check(shapes)

    def prepare(self, context: PlacementContext) -> Preparation:
        """Runs the probes of `like`."""
        return self.like.prepare(context)

    def place(self, context: PlacementContext) -> Placement | Hindered:
        """Returns a draw with the number of sites per layer of what `like` places."""
        placed = self.like.place(context)
        if isinstance(placed, Hindered):
            return placed
        facts = context.facts
        rng = stream(facts.seed, Purpose.PLACEMENT, facts.device, context.release.version)
        layers = [site.layer for site in placed.ranks]
        drawn = [
            Site(layer, MODULES[int(place)])
            for layer in sorted(set(layers))
            for place in rng.choice(len(MODULES), layers.count(layer), replace=False)
        ]
        return replace(placed, sites=tuple(sorted(drawn, key=order)), ties=())

    def allows(self, context: PlacementContext, placement: Placement) -> bool:
        """Returns True: a draw may cost more than the budget of `like`."""
        return True

    def keeps(
        self, context: PlacementContext, whole: PlacementContext, placement: Placement
    ) -> bool:
        """Returns whether a retune may go on at an earlier placement, as `like` says."""
        return self.like.keeps(context, whole, placement)

    def is_over_budget(self, context: PlacementContext, placement: Placement) -> bool:
        """As `like`."""
        return self.like.is_over_budget(context, placement)
