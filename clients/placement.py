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

    def smaller(self, placement: adapters.Placement) -> adapters.Placement | None:
        """Returns what to try where a placement does not fit the memory; None to give up."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EverySite:
    """LoRA on all seven matrices of every layer."""

    rank: int
    alpha: float

    def place(self, shapes: Shapes) -> adapters.Placement:
        """Returns every site."""
        return _layers(shapes, 0, self.rank, self.alpha)

    def smaller(self, placement: adapters.Placement) -> adapters.Placement | None:
        """Returns None: every site or nothing."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLayers:
    """LoRA on all seven matrices of the layers nearest the output.

    Attributes:
        layers: How many layers, counted from the output.
        rank: Rank of every adapter.
        alpha: LoRA's alpha.
        shrink: Whether a device whose memory this does not fit adapts fewer layers instead.
    """

    layers: int
    rank: int
    alpha: float
    shrink: bool = False

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

    def smaller(self, placement: adapters.Placement) -> adapters.Placement | None:
        """Returns the upper half of a placement's layers, down to one; None without `shrink`."""
        layers = sorted({site.layer for site in placement.sites})
        if not self.shrink or len(layers) == 1:
            return None
        kept = layers[len(layers) - len(layers) // 2 :]
        sites = tuple(site for site in placement.sites if site.layer in kept)
        return adapters.Placement(sites=sites, rank=placement.rank, alpha=placement.alpha)


def _layers(shapes: Shapes, first: int, rank: int, alpha: float) -> adapters.Placement:
    for n_in, n_out in shapes.matrices().values():
        adapters.check_rank(rank, n_in, n_out)
    if not alpha > 0:
        raise ValueError(f"placement.alpha must be > 0, got {alpha}")
    sites = tuple(
        Site(layer, module) for layer in range(first, shapes.layers) for module in MODULES
    )
    return adapters.Placement(sites=sites, rank=rank, alpha=alpha)
