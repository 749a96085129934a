"""FFA: A is frozen and shared, so the mean of B is exact (FFA-LoRA, arXiv:2403.12313).

The update ``s B A`` is linear in B. A patch whose A is another one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.factors import Array
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Matrix, Update
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.shapes import Site
from strategies.aggregation.exact_mean import check_weights, dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffa:
    """The mean of B over one shared A; exact.

    Attributes:
        weights: How a device counts.
    """

    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

    def open(self) -> FfaAggregate:
        """Returns an aggregate of nothing yet."""
        return FfaAggregate()


@dataclass(slots=True, eq=False)
class _Shared:
    """One site's A, and the sum of the B that go with it."""

    a: Array
    left: Matrix
    weight: float = 0.0
    count: int = 0


@dataclass(slots=True, eq=False)
class FfaAggregate:
    """Sums of B by site, each scaled by its patch's own ``alpha / rank``."""

    sums: dict[Site, _Shared] = field(default_factory=dict[Site, _Shared])

    @property
    def counts(self) -> dict[Site, int]:
        """How many devices adapted each site."""
        return {site: entry.count for site, entry in self.sums.items()}

    def add(self, patch: Patch, weight: float = 1.0) -> None:
        """Adds one device's B.

        Raises:
            RejectedError: If an A is not that of the devices before.
        """
        plain = patch.untie()
        for site, item in plain.factors.items():
            before = self.sums.get(site)
            if before is not None and not np.array_equal(before.a, item.a):
                raise RejectedError(Rejection.UNLIKE_A, f"A of {site} must be the shared one")
        for site, item in plain.factors.items():
            left = item.b.astype(np.float64) * (plain.scale(site) * weight)
            entry = self.sums.setdefault(site, _Shared(item.a, 0 * left))
            entry.left = entry.left + left
            entry.weight += weight
            entry.count += 1

    def updates(self) -> dict[Site, Update]:
        """Returns the mean of B times the shared A."""
        return {
            site: Update(left=entry.left / entry.weight, right=entry.a.astype(np.float64))
            for site, entry in self.sums.items()
        }

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns it as dense matrices."""
        return dense(self.updates())
