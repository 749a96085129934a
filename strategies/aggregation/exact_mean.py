"""The weighted mean of effective updates, without any error but rounding.

Source: FLoRA (arXiv:2409.05976); docs/methods.md#exact-mean-by-stacking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleettune.adapters.factors import Factors
from fleettune.adapters.updates import Matrix, Update, add_updates, factor_dense
from strategies.aggregation.aggregate import Aggregate, SiteDelta, check_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactMean:
    """The weighted mean of effective updates, exact.

    Factors are stacked, the weight on one of them only. Their rank would grow with every reply, so
    a site whose stacked factors outgrow its matrix is summed as that matrix: memory is bounded by
    twice the adapted matrices in double precision, and nothing is ever rounded to a rank.

    Attributes:
        weights: How a device counts.
    """

    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def open(self) -> Aggregate[_Sum]:
        """Returns an aggregate of nothing yet."""
        return Aggregate(
            add_site=_add, mean_site=_mean, matrix_site=lambda held, weight: _dense(held) / weight
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """One site's sum: factors with their scale and weight, or already one matrix."""

    waiting: tuple[tuple[Factors, float, float], ...] = ()
    total: Matrix | None = None


def _add(held: _Sum | None, delta: SiteDelta, weight: float) -> _Sum:
    before, item = held or _Sum(), delta.factors
    found = _Sum((*before.waiting, (item, delta.scale, weight)), before.total)
    size = sum(one.a.nbytes + one.b.nbytes for one, _, _ in found.waiting)
    if found.total is not None or size > 8 * item.a.shape[1] * item.b.shape[0]:
        return _Sum(total=_dense(found))
    return found


def _dense(held: _Sum) -> Matrix:
    """Returns a sum as a matrix; the order of the additions is that of the devices."""
    total = held.total
    for item, scale, weight in held.waiting:
        product = np.asarray(np.float32(scale) * (item.b @ item.a), dtype=np.float64) * weight
        total = product if total is None else total + product
    if total is None:
        raise ValueError("a sum of nothing has no matrix")
    return total


def _mean(held: _Sum, weight: float) -> Update:
    if held.total is not None:
        return factor_dense(held.total / weight)
    return add_updates(
        [
            Update(
                left=item.b.astype(np.float64) * (scale * own / weight),
                right=item.a.astype(np.float64),
            )
            for item, scale, own in held.waiting
        ]
    )
