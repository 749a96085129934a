"""An aggregate folds the deltas of a round into one update per site, one device after the other.

A rule says how one device's delta at one site is added to what is held, and what update the held
value stands for. No rule may keep what it was given, so memory does not grow with the replies. Each
site has its own denominator: the weights of the devices that adapted it. ``alpha / rank`` is folded
in once. Source: docs/methods.md#aggregation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Matrix, Update
from fleettune.shapes import Site

S = TypeVar("S")

WEIGHTS = ("uniform", "examples")
"""How a device counts: as one, or by the exchanges that it tuned on."""


def check_weights(weights: str) -> None:
    """Raises ValueError if weights are not among `WEIGHTS`."""
    if weights not in WEIGHTS:
        raise ValueError(f"aggregation.weights must be one of {WEIGHTS}, got {weights!r}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteDelta:
    """One device's delta at one site, with LoRA's alpha."""

    site: Site
    factors: Factors
    alpha: float

    @property
    def rank(self) -> int:
        """Rank of the factors."""
        return self.factors.a.shape[0]

    @property
    def scale(self) -> float:
        """What multiplies the product of the factors."""
        return self.alpha / self.rank

    def update(self) -> Update:
        """Returns the delta in double precision, the scale folded into the left factor."""
        left = self.factors.b.astype(np.float64) * self.scale
        return Update(left=left, right=self.factors.a.astype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteSum(Generic[S]):
    """One site so far.

    Attributes:
        held: What the rule made of the deltas.
        weight: Summed weight of the devices that adapted the site.
        count: How many they are.
    """

    held: S
    weight: float = 0.0
    count: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Aggregate(Generic[S]):
    """The deltas of one arm and round so far, site by site.

    Attributes:
        add_site: Returns what a rule holds of a site after one more delta; it held None before the
            first. Raises `RejectedError` if the delta does not fit the rule.
        mean_site: Returns a site's aggregate from what is held and the summed weight.
        matrix_site: Returns the same as a matrix, where a rule has a better way than the product.
        prepare: What is done to a delta before it is taken apart.
        least: Devices that a site needs; with fewer it has no aggregate.
        sites: What is held.
    """

    add_site: Callable[[S | None, SiteDelta, float], S]
    mean_site: Callable[[S, float], Update]
    matrix_site: Callable[[S, float], Matrix] | None = None
    prepare: Callable[[Patch], Patch] = lambda patch: patch
    least: int = 1
    sites: dict[Site, SiteSum[S]] = field(default_factory=dict[Site, SiteSum[S]])

    @property
    def counts(self) -> dict[Site, int]:
        """How many devices adapted each site that has an aggregate."""
        return {site: entry.count for site, entry in self._ready().items()}

    def add(self, patch: Patch, weight: float = 1.0) -> None:
        """Adds one device's delta: all of it, or nothing.

        Raises:
            RejectedError: If it does not fit the rule.
        """
        plain = self.prepare(patch).untie()
        self.sites |= {
            site: self._plus(SiteDelta(site=site, factors=factors, alpha=plain.alpha), weight)
            for site, factors in plain.factors.items()
        }

    def updates(self) -> dict[Site, Update]:
        """Returns the aggregate of every adapted site, in factored form."""
        return {
            site: self.mean_site(entry.held, entry.weight) for site, entry in self._ready().items()
        }

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns it as dense matrices."""
        if self.matrix_site is None:
            found = {site: update.dense() for site, update in self.updates().items()}
        else:
            ready = self._ready()
            found = {s: self.matrix_site(one.held, one.weight) for s, one in ready.items()}
        return {site: value.astype(np.float32) for site, value in found.items()}

    def _plus(self, delta: SiteDelta, weight: float) -> SiteSum[S]:
        before = self.sites.get(delta.site)
        held = self.add_site(before.held if before else None, delta, weight)
        if before is None:
            return SiteSum(held=held, weight=weight, count=1)
        return SiteSum(held=held, weight=before.weight + weight, count=before.count + 1)

    def _ready(self) -> dict[Site, SiteSum[S]]:
        return {site: entry for site, entry in self.sites.items() if entry.count >= self.least}


@runtime_checkable
class Aggregation(Protocol):
    """A rule of aggregation, which a configuration names."""

    @property
    def weights(self) -> str:
        """One of `WEIGHTS`."""
        ...

    def open(self) -> Aggregate[Any]:
        """Returns an aggregate of nothing yet."""
        ...


def mean_norm(aggregate: Aggregate[Any]) -> float:
    """Returns the Frobenius norm of an aggregate over all sites."""
    squares = (
        float(np.square(value, dtype=np.float64).sum()) for value in aggregate.mean().values()
    )
    return float(np.sqrt(sum(squares)))
