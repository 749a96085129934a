"""Clipping: each delta's norm is bounded before it is averaged.

Source: docs/methods.md#pitfalls-of-aggregation, pitfall 7.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Update, patch_of, total_norm, updates_of
from fleettune.shapes import Site
from strategies.aggregation.exact_mean import ExactAggregate, check_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class NormClip:
    """The mean of deltas whose norm over all sites was clipped.

    Attributes:
        norm: Largest Frobenius norm of a device's delta.
        weights: How a device counts.
    """

    norm: float
    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if not self.norm > 0:
            raise ValueError(f"aggregation.norm must be > 0, got {self.norm}")

    @property
    def is_exact(self) -> bool:
        """False where a delta is clipped."""
        return False

    def open(self) -> ClippedAggregate:
        """Returns an aggregate of nothing yet."""
        return ClippedAggregate(norm=self.norm)


@dataclass(slots=True, kw_only=True, eq=False)
class ClippedAggregate:
    """A sum of clipped deltas.

    Attributes:
        norm: Largest norm of a delta.
        inner: What is summed.
    """

    norm: float
    inner: ExactAggregate = field(default_factory=ExactAggregate)

    @property
    def counts(self) -> dict[Site, int]:
        """How many devices adapted each site."""
        return self.inner.counts

    def add(self, patch: Patch, weight: float = 1.0) -> None:
        """Adds one device's delta, clipped."""
        own = updates_of(patch)
        found = total_norm(own.values())
        if found > self.norm:
            own = {site: update.times(self.norm / found) for site, update in own.items()}
            patch = patch_of(own, patch.release, patch.alpha)
        self.inner.add(patch, weight)

    def updates(self) -> dict[Site, Update]:
        """Returns the mean."""
        return self.inner.updates()

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns it as dense matrices."""
        return self.inner.mean()
