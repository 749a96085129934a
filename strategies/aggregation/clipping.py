"""Clipping: each delta's norm is bounded before it is averaged.

Source: docs/methods.md#clipping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import patch_of, total_norm, updates_of
from strategies.aggregation.aggregate import Aggregate, check_weights
from strategies.aggregation.exact_mean import ExactMean


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

    def open(self) -> Aggregate[Any]:
        """Returns an aggregate of nothing yet."""
        aggregate = ExactMean(weights=self.weights).open()
        aggregate.prepare = self.clip
        return aggregate

    def clip(self, patch: Patch) -> Patch:
        """Returns a delta as it is, or scaled to the largest norm."""
        own = updates_of(patch)
        found = total_norm(own.values())
        if found <= self.norm:
            return patch
        scaled = {site: update.times(self.norm / found) for site, update in own.items()}
        return patch_of(scaled, patch.release, patch.alpha)
