"""Averages of factors: wrong where devices differ, and here for comparison.

Source: docs/methods.md#factor-mean-and-zero-padding.

FedIT averages A and B apart; with unlike ranks they are padded with zeros first. The product of
means is not the mean of products: the error is the covariance of the factors. FedEx-LoRA
(arXiv:2410.09432) adds `fedex_residual` to make it right; it is for a matrix ``(n_out, n_in)``,
not its transpose as in the released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Matrix, Update, add_updates, updates_of
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.shapes import Site
from strategies.aggregation.exact_mean import check_weights, dense


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorMean:
    """The product of mean factors; inexact, and for equal ranks and scales only (FedIT).

    Attributes:
        weights: How a device counts.
    """

    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)

    @property
    def is_exact(self) -> bool:
        """False."""
        return False

    def open(self) -> FactorAggregate:
        """Returns an aggregate of nothing yet."""
        return FactorAggregate(rank=None, is_folded=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroPad:
    """The product of mean factors, padded with zeros to one rank; inexact.

    Attributes:
        rank: The largest rank of any device.
        folded: True if the root of ``alpha / rank`` goes into both factors first; False leaves it
            out and scales the product as a patch of the padded rank, as published code does.
        weights: How a device counts.
    """

    rank: int
    folded: bool = True
    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.rank < 1:
            raise ValueError(f"aggregation.rank must be >= 1, got {self.rank}")

    @property
    def is_exact(self) -> bool:
        """False."""
        return False

    def open(self) -> FactorAggregate:
        """Returns an aggregate of nothing yet."""
        return FactorAggregate(rank=self.rank, is_folded=self.folded)


@dataclass(slots=True, eq=False)
class _Means:
    """One site's sums of factors, their scale, and what divides them."""

    left: Matrix
    right: Matrix
    scale: float
    weight: float
    count: int


@dataclass(slots=True, kw_only=True, eq=False)
class FactorAggregate:
    """Sums of factors by site.

    Attributes:
        rank: Rank to pad to; None where all must have one rank and one scale.
        is_folded: Whether scales go into the factors.
        sums: The sums.
    """

    rank: int | None
    is_folded: bool
    sums: dict[Site, _Means] = field(default_factory=dict[Site, _Means])

    @property
    def counts(self) -> dict[Site, int]:
        """How many devices adapted each site."""
        return {site: entry.count for site, entry in self.sums.items()}

    def add(self, patch: Patch, weight: float = 1.0) -> None:
        """Adds one device's factors.

        Raises:
            RejectedError: If a rank or scale is not that of the devices before, or a rank is above
                the one to pad to.
        """
        plain = patch.untie()
        found = {site: self._factors(plain, site) for site in plain.factors}
        for site, (left, right, scale) in found.items():
            entry = self.sums.get(site)
            if entry is None:
                entry = _Means(0 * left, 0 * right, scale, 0.0, 0)
                self.sums[site] = entry
            entry.left = entry.left + weight * left
            entry.right = entry.right + weight * right
            entry.weight += weight
            entry.count += 1

    def updates(self) -> dict[Site, Update]:
        """Returns the product of mean factors of every site."""
        return {
            site: Update(
                left=entry.left * (entry.scale / entry.weight), right=entry.right / entry.weight
            )
            for site, entry in self.sums.items()
        }

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns it as dense matrices."""
        return dense(self.updates())

    def _factors(self, plain: Patch, site: Site) -> tuple[Matrix, Matrix, float]:
        """Returns a site's factors as they are averaged, and the scale of their product."""
        item, scale = plain.factors[site], plain.scale(site)
        left, right = item.b.astype(np.float64), item.a.astype(np.float64)
        rank, before = left.shape[1], self.sums.get(site)
        if self.rank is None:
            if before is not None and (before.left.shape[1], before.scale) != (rank, scale):
                told = f"{site} must be of rank {before.left.shape[1]} and scale {before.scale}"
                raise RejectedError(Rejection.UNLIKE_RANK, f"{told}, got {rank} and {scale}")
            return left, right, scale
        if rank > self.rank:
            told = f"{site} must have a rank <= {self.rank}, got {rank}"
            raise RejectedError(Rejection.UNLIKE_RANK, told)
        root = np.sqrt(scale) if self.is_folded else 1.0
        more = self.rank - rank
        return (
            np.pad(root * left, ((0, 0), (0, more))),
            np.pad(root * right, ((0, more), (0, 0))),
            1.0 if self.is_folded else plain.alpha / self.rank,
        )


def fedex_residual(
    patches: Sequence[Patch], weights: Sequence[float], averaged: Mapping[Site, Update]
) -> dict[Site, Update]:
    """Returns what an average of factors lacks of the mean of products, in factored form (FedEx).

    Args:
        patches: What was averaged.
        weights: Weight of each.
        averaged: The average, for example of `FactorAggregate.updates`.
    """
    found: dict[Site, Update] = {}
    everything = [updates_of(patch) for patch in patches]
    for site, mean in averaged.items():
        own = [(one[site], w) for one, w in zip(everything, weights, strict=True) if site in one]
        total = sum(weight for _, weight in own)
        parts = [update.times(weight / total) for update, weight in own]
        found[site] = add_updates([*parts, mean.times(-1)]).truncate()
    return found
