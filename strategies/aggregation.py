"""Aggregation: the mean effective update of unlike patches, site by site.

Factors are never averaged: devices differ in rank and sites, and a mean of factors is wrong even
where they do not (METHODS C). Each site has its own denominator, the devices that adapted it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters import Patch
from fleettune.sites import Site


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetUpdate:
    """Sums of effective updates; add patches in the order of their devices.

    Attributes:
        sums: Sum of the dense updates of every site, in double precision.
        counts: Devices that adapted each site.
    """

    sums: dict[Site, NDArray[np.float64]] = field(default_factory=dict[Site, NDArray[np.float64]])
    counts: dict[Site, int] = field(default_factory=dict[Site, int])

    def with_patch(self, patch: Patch) -> FleetUpdate:
        """Returns the sums with one more patch in them."""
        sums, counts = dict(self.sums), dict(self.counts)
        plain = patch.untied()
        for site in plain.factors:
            dense = plain.dense(site).astype(np.float64)
            sums[site] = sums[site] + dense if site in sums else dense
            counts[site] = counts.get(site, 0) + 1
        return FleetUpdate(sums=sums, counts=counts)

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns the mean effective update of every adapted site."""
        return {
            site: (total / self.counts[site]).astype(np.float32)
            for site, total in self.sums.items()
        }

    def norm(self) -> float:
        """Returns the Frobenius norm of the mean update over all sites."""
        squares = (
            float(np.square(value, dtype=np.float64).sum()) for value in self.mean().values()
        )
        return float(np.sqrt(sum(squares)))
