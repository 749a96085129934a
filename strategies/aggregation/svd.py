"""SVD: the best approximation of the mean update at a rank, by the QR trick.

FlexLoRA (arXiv:2402.11505) decomposes the dense mean; two QR decompositions and the SVD of a small
core give the same (HLoRA, NVFlare; docs/methods.md#svd-at-a-rank), here with every device's own
``alpha / rank``. The stacked factors are shortened whenever they hold twice the working rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleettune.adapters.updates import Update, add_updates
from strategies.aggregation.aggregate import Aggregate, SiteDelta, check_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Svd:
    """The mean's best approximation.

    Attributes:
        rank: Its rank at every site.
        working_rank: Rank that the running sum is shortened to. Where a matrix's smaller side is
            not larger, nothing is lost on the way.
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

    def open(self) -> Aggregate[_Factored]:
        """Returns an aggregate of nothing yet."""
        return Aggregate(add_site=self._add, mean_site=self._mean)

    def _add(self, held: _Factored | None, delta: SiteDelta, weight: float) -> _Factored:
        """Returns the sum with one delta more; the weight goes onto one factor."""
        before, update = held or _Factored(), delta.update()
        found = _Factored((*before.parts, update.times(weight)), before.left_out)
        limit = min(self.working_rank, update.left.shape[0], update.right.shape[1])
        if sum(part.rank for part in found.parts) <= 2 * limit:
            return found
        short, lost = add_updates(found.parts).truncate_with_error(limit)
        return _Factored((short,), found.left_out + lost)

    def _mean(self, held: _Factored, weight: float) -> Update:
        return add_updates(held.parts).times(1 / weight).truncate(self.rank)


@dataclass(frozen=True, slots=True, eq=False)
class _Factored:
    """One site's sum in factors, and an upper bound of the norm that shortening took from it."""

    parts: tuple[Update, ...] = ()
    left_out: float = 0.0
