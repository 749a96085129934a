"""FFA: A is frozen and shared, so the mean of B is exact (FFA-LoRA, arXiv:2403.12313).

The update ``s B A`` is linear in B. A patch whose A is another one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleettune.adapters.factors import Array
from fleettune.adapters.updates import Matrix, Update
from fleettune.deltas.rejections import RejectedError, Rejection
from strategies.aggregation.aggregate import Aggregate, SiteDelta, check_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffa:
    """The mean of B over one shared A; exact.

    Attributes:
        weights: How a device counts.
    """

    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def open(self) -> Aggregate[_Shared]:
        """Returns an aggregate of nothing yet."""
        return Aggregate(add_site=_add, mean_site=_mean)


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """One site's A, and the sum of the B that go with it."""

    a: Array
    left: Matrix


def _add(held: _Shared | None, delta: SiteDelta, weight: float) -> _Shared:
    item = delta.factors
    if held is not None and not np.array_equal(held.a, item.a):
        raise RejectedError(Rejection.UNLIKE_A, f"A of {delta.site} must be the shared one")
    left = item.b.astype(np.float64) * (delta.scale * weight)
    return _Shared(item.a, left) if held is None else _Shared(held.a, held.left + left)


def _mean(held: _Shared, weight: float) -> Update:
    return Update(left=held.left / weight, right=held.a.astype(np.float64))
