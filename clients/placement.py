"""Placement: which sites of the backbone carry an adapter of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fleettune import adapters
from fleettune.sites import MODULES, Site
from fleettune.work import Shapes


@runtime_checkable
class PlacementRule(Protocol):
    """A rule that places adapters on a backbone."""

    def place(self, shapes: Shapes) -> adapters.Placement:
        """Returns the placement for a backbone of these shapes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EverySite:
    """LoRA on all seven matrices of every layer."""

    rank: int
    alpha: float

    def place(self, shapes: Shapes) -> adapters.Placement:
        """Returns every site."""
        return _layers(shapes, 0, self.rank, self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLayers:
    """LoRA on all seven matrices of the layers nearest the output.

    Attributes:
        layers: How many layers, counted from the output.
        rank: Rank of every adapter.
        alpha: LoRA's alpha.
    """

    layers: int
    rank: int
    alpha: float

    def place(self, shapes: Shapes) -> adapters.Placement:
        """Returns the sites of the top layers.

        Raises:
            ValueError: If the backbone has fewer layers.
        """
        if not 1 <= self.layers <= shapes.layers:
            raise ValueError(
                f"placement.layers must be between 1 and {shapes.layers}, the layers of this "
                f"model, got {self.layers}"
            )
        return _layers(shapes, shapes.layers - self.layers, self.rank, self.alpha)


def _layers(shapes: Shapes, first: int, rank: int, alpha: float) -> adapters.Placement:
    for n_in, n_out in shapes.matrices().values():
        adapters.check_rank(rank, n_in, n_out)
    if not alpha > 0:
        raise ValueError(f"placement.alpha must be > 0, got {alpha}")
    sites = tuple(
        Site(layer, module) for layer in range(first, shapes.layers) for module in MODULES
    )
    return adapters.Placement(sites=sites, rank=rank, alpha=alpha)
