"""Averages of factors, as published: wrong where devices differ, and here for comparison.

FedIT averages A and B apart; with unlike ranks they are padded with zeros first. The product of
means is not the mean of products: the error is the covariance of the factors.

Source: docs/methods.md#factor-mean-and-zero-padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleettune.adapters.updates import Matrix, Update
from fleettune.deltas.rejections import RejectedError, Rejection
from strategies.aggregation.aggregate import Aggregate, SiteDelta, check_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorMean:
    """The product of mean factors; inexact, and for equal ranks and scales only (FedIT).

    Attributes:
        weights: How a device counts.
    """

    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def open(self) -> Aggregate[_Means]:
        """Returns an aggregate of nothing yet."""
        return Aggregate(add_site=self._add, mean_site=_mean)

    def _add(self, held: _Means | None, delta: SiteDelta, weight: float) -> _Means:
        rank, scale = delta.rank, delta.scale
        if held is not None and (held.left.shape[1], held.scale) != (rank, scale):
            rule = f"{delta.site} must be of rank {held.left.shape[1]} and scale {held.scale}"
            raise RejectedError(Rejection.UNLIKE_RANK, f"{rule}, got {rank} and {scale}")
        left, right = delta.factors.b.astype(np.float64), delta.factors.a.astype(np.float64)
        return _plus(held, weight * left, weight * right, scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroPad:
    """The product of mean factors, padded with zeros to one rank; inexact.

    Attributes:
        rank: The largest rank of any device.
        folded: True if the root of ``alpha / rank`` goes into both factors first; False leaves it
            out and scales the product as a patch of the padded rank, as published code does. That
            scale needs one alpha, so devices with another one are refused.
        weights: How a device counts.
    """

    rank: int
    folded: bool = True
    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.rank < 1:
            raise ValueError(f"aggregation.rank must be >= 1, got {self.rank}")

    def open(self) -> Aggregate[_Means]:
        """Returns an aggregate of nothing yet."""
        return Aggregate(add_site=self._add, mean_site=_mean)

    def _add(self, held: _Means | None, delta: SiteDelta, weight: float) -> _Means:
        if delta.rank > self.rank:
            rule = f"{delta.site} must have a rank <= {self.rank}"
            raise RejectedError(Rejection.UNLIKE_RANK, f"{rule}, got {delta.rank}")
        scale = 1.0 if self.folded else delta.alpha / self.rank
        if held is not None and held.scale != scale:
            raise RejectedError(
                Rejection.UNLIKE_RANK,
                f"{delta.site} must have alpha {held.scale * self.rank:g}, as the devices before, "
                f"got {delta.alpha:g}: give all devices one alpha, or set aggregation.folded=true",
            )
        root = np.sqrt(delta.scale) if self.folded else 1.0
        more = self.rank - delta.rank
        left = np.pad(root * delta.factors.b.astype(np.float64), ((0, 0), (0, more)))
        right = np.pad(root * delta.factors.a.astype(np.float64), ((0, more), (0, 0)))
        return _plus(held, weight * left, weight * right, scale)


@dataclass(frozen=True, slots=True, eq=False)
class _Means:
    """One site's weighted sums of factors, and the scale of their product."""

    left: Matrix
    right: Matrix
    scale: float


def _plus(held: _Means | None, left: Matrix, right: Matrix, scale: float) -> _Means:
    if held is None:
        return _Means(left, right, scale)
    return _Means(held.left + left, held.right + right, scale)


def _mean(held: _Means, weight: float) -> Update:
    return Update(left=held.left * (held.scale / weight), right=held.right / weight)
