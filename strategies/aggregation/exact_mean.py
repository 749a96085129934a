"""Aggregation: what the deltas of a round say together, site by site.

An aggregation is a rule that a configuration names; it opens a running aggregate for every arm and
round, and deltas are added in the order of their devices. No aggregate keeps what it was given, so
its memory does not grow with the replies. Each site has its own denominator, the weights of the
devices that adapted it; ``alpha / rank`` is folded in once
(docs/methods.md#exact-mean-by-stacking).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Matrix, Update, add_updates, factor_dense
from fleettune.shapes import Site

WEIGHTS = ("uniform", "examples")
"""How a device counts: as one, or by the exchanges that it tuned on."""


class Aggregate(Protocol):
    """A running aggregate."""

    @property
    def counts(self) -> Mapping[Site, int]:
        """How many devices adapted each site."""
        ...

    def add(self, patch: Patch, weight: float) -> None:
        """Adds one device's delta; all of it, or nothing and a `RejectedError`."""
        ...

    def updates(self) -> dict[Site, Update]:
        """Returns the aggregate of every adapted site, in factored form."""
        ...

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns it as dense matrices."""
        ...


@runtime_checkable
class Aggregation(Protocol):
    """A rule of aggregation."""

    @property
    def weights(self) -> str:
        """One of `WEIGHTS`."""
        ...

    @property
    def is_exact(self) -> bool:
        """True if the aggregate is the weighted mean of effective updates, to rounding."""
        ...

    def open(self) -> Aggregate:
        """Returns an aggregate of nothing yet."""
        ...


def check_weights(weights: str) -> None:
    """Raises ValueError if weights are not among `WEIGHTS`."""
    if weights not in WEIGHTS:
        raise ValueError(f"aggregation.weights must be one of {WEIGHTS}, got {weights!r}")


def dense(updates: Mapping[Site, Update]) -> dict[Site, NDArray[np.float32]]:
    """Returns updates as dense matrices in single precision."""
    return {site: update.dense().astype(np.float32) for site, update in updates.items()}


def mean_norm(aggregate: Aggregate) -> float:
    """Returns the Frobenius norm of an aggregate over all sites."""
    squares = (
        float(np.square(value, dtype=np.float64).sum()) for value in aggregate.mean().values()
    )
    return float(np.sqrt(sum(squares)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactMean:
    """The weighted mean of effective updates, exact (FLoRA, arXiv:2409.05976).

    Factors are stacked, the weight on one of them only. Their rank would grow with every reply, so
    a site whose stacked factors outgrow its matrix is summed as that matrix: memory is bounded by
    twice the adapted matrices in double precision, and nothing is ever rounded to a rank.

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

    def open(self) -> ExactAggregate:
        """Returns an aggregate of nothing yet."""
        return ExactAggregate()


@dataclass(slots=True, eq=False)
class _Sum:
    """One site's sum: factors with their scale and weight, or already one matrix."""

    waiting: list[tuple[Factors, float, float]] = field(
        default_factory=list[tuple[Factors, float, float]]
    )
    total: Matrix | None = None
    weight: float = 0.0
    count: int = 0

    def add(self, item: Factors, scale: float, weight: float) -> None:
        self.waiting.append((item, scale, weight))
        self.weight += weight
        self.count += 1
        held = sum(one.a.nbytes + one.b.nbytes for one, _, _ in self.waiting)
        if self.total is not None or held > 8 * item.a.shape[1] * item.b.shape[0]:
            self.total = self.dense()
            self.waiting.clear()

    def dense(self) -> Matrix:
        """Returns the sum as a matrix; the order of the additions is that of the devices."""
        total = self.total
        for item, scale, weight in self.waiting:
            product = np.asarray(np.float32(scale) * (item.b @ item.a), dtype=np.float64) * weight
            total = product if total is None else total + product
        if total is None:
            raise ValueError("a sum of nothing has no matrix")
        return total

    def update(self) -> Update:
        """Returns the mean, in factors."""
        if self.total is not None:
            return factor_dense(self.total / self.weight)
        return add_updates(
            [
                Update(
                    left=item.b.astype(np.float64) * (scale * weight / self.weight),
                    right=item.a.astype(np.float64),
                )
                for item, scale, weight in self.waiting
            ]
        )


@dataclass(slots=True, eq=False)
class ExactAggregate:
    """Sums of effective updates in double precision, by site."""

    sums: dict[Site, _Sum] = field(default_factory=dict[Site, _Sum])

    @property
    def counts(self) -> dict[Site, int]:
        """How many devices adapted each site."""
        return {site: entry.count for site, entry in self.sums.items()}

    def add(self, patch: Patch, weight: float = 1.0) -> None:
        """Adds one device's delta."""
        plain = patch.untie()
        for site, item in plain.factors.items():
            self.sums.setdefault(site, _Sum()).add(item, plain.scale(site), weight)

    def updates(self) -> dict[Site, Update]:
        """Returns the mean of every adapted site, in factored form."""
        return {site: entry.update() for site, entry in self.sums.items()}

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns the mean effective update of every adapted site."""
        return {
            site: (entry.dense() / entry.weight).astype(np.float32)
            for site, entry in self.sums.items()
        }
