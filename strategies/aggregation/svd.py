"""SVD: the best approximation of the mean update at a rank, by the QR trick.

FlexLoRA (arXiv:2402.11505) decomposes the dense mean; two QR decompositions and the SVD of a small
core give the same (HLoRA, NVFlare; docs/methods.md#svd-at-a-rank), here with every device's own
``alpha / rank``. The
stacked factors are shortened whenever they hold twice the working rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Update, add_updates, updates_of
from fleettune.shapes import Site
from strategies.aggregation.exact_mean import check_weights, dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Svd:
    """The mean's best approximation.

    Attributes:
        rank: Its rank at every site.
        working_rank: Rank that the running sum is shortened to. Where a matrix's smaller side is
            not larger, nothing is lost on the way; else `SvdAggregate.left_out` bounds it.
        weights: How a device counts.
    """

    rank: int
    working_rank: int = 256
    weights: str = "uniform"

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if not 1 <= self.rank <= self.working_rank:
            raise ValueError(
                "aggregation.rank must be from 1 to aggregation.working_rank "
                f"({self.working_rank}), got {self.rank}"
            )

    @property
    def is_exact(self) -> bool:
        """False: a mean of many updates has a higher rank."""
        return False

    def open(self) -> SvdAggregate:
        """Returns an aggregate of nothing yet."""
        return SvdAggregate(rank=self.rank, working_rank=self.working_rank)


@dataclass(slots=True, eq=False)
class _Running:
    """One site's sum in factors."""

    parts: list[Update] = field(default_factory=list[Update])
    held: int = 0
    weight: float = 0.0
    count: int = 0
    left_out: float = 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class SvdAggregate:
    """Sums of effective updates, in factors of bounded rank."""

    rank: int
    working_rank: int
    sums: dict[Site, _Running] = field(default_factory=dict[Site, _Running])

    @property
    def counts(self) -> dict[Site, int]:
        """How many devices adapted each site."""
        return {site: entry.count for site, entry in self.sums.items()}

    @property
    def left_out(self) -> dict[Site, float]:
        """Upper bound of the Frobenius norm that shortening took from each site's mean."""
        return {site: entry.left_out / entry.weight for site, entry in self.sums.items()}

    def add(self, patch: Patch, weight: float = 1.0) -> None:
        """Adds one device's delta; the weight goes onto one factor."""
        for site, update in updates_of(patch).items():
            entry = self.sums.setdefault(site, _Running())
            entry.parts.append(update.times(weight))
            entry.held += update.rank
            entry.weight += weight
            entry.count += 1
            limit = min(self.working_rank, *(update.left.shape[0], update.right.shape[1]))
            if entry.held > 2 * limit:
                short, lost = add_updates(entry.parts).truncate_with_error(limit)
                entry.parts, entry.held = [short], short.rank
                entry.left_out += lost

    def updates(self) -> dict[Site, Update]:
        """Returns the best approximation of every site's mean."""
        return {
            site: add_updates(entry.parts).times(1 / entry.weight).truncate(self.rank)
            for site, entry in self.sums.items()
        }

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns it as dense matrices."""
        return dense(self.updates())
