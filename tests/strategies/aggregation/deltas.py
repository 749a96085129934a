"""Deltas of unlike devices, and what a weighted mean of them must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Matrix, Update
from fleettune.shapes import Site
from strategies.aggregation import (
    Aggregate,
    Aggregation,
    ExactMean,
    FactorMean,
    Ffa,
    MedianOfMeans,
    NormClip,
    Svd,
    TrimmedMean,
    ZeroPad,
)

SITE, OTHER = Site(0, "q"), Site(1, "down")


SHAPE = (24, 24)
"""Square, as query and value often are: a transposed matrix fits without a complaint."""


def drawn(rng: np.random.Generator, rank: int, shape: tuple[int, int] = SHAPE) -> Factors:
    a, b = rng.normal(size=(rank, shape[1])), rng.normal(size=(shape[0], rank))
    return Factors(a=a.astype(np.float32), b=b.astype(np.float32))


def patch(rng: np.random.Generator, rank: int, alpha: float, sites: Sequence[Site]) -> Patch:
    factors = {site: drawn(rng, rank) for site in sites}
    return Patch(release=0, alpha=alpha, factors=factors)


def fleet(seed: int, ranks: Sequence[int] = (2, 3, 6)) -> tuple[list[Patch], list[float]]:
    """Devices of unlike ranks, scales, supports and weights."""
    rng = np.random.default_rng(seed)
    patches = [
        patch(rng, rank, float(rng.integers(1, 30)), [SITE, OTHER][: 1 + place % 2])
        for place, rank in enumerate(ranks)
    ]
    return patches, [float(weight) for weight in rng.integers(1, 9, size=len(ranks))]


def added(rule: Aggregation, patches: Sequence[Patch], weights: Sequence[float]) -> Aggregate[Any]:
    aggregate = rule.open()
    for one, weight in zip(patches, weights, strict=True):
        aggregate.add(one, weight)
    return aggregate


def effective(one: Patch, site: Site) -> Matrix:
    """``alpha / rank * B A`` in double precision, with nothing of ours."""
    item = one.untie().factors[site]
    scale = one.alpha / item.a.shape[0]
    return scale * item.b.astype(np.float64) @ item.a.astype(np.float64)


def truth(patches: Sequence[Patch], weights: Sequence[float]) -> dict[Site, Matrix]:
    """The weighted mean of effective updates over the devices that adapted a site."""
    found: dict[Site, Matrix] = {}
    for site in (SITE, OTHER):
        own = [(one, w) for one, w in zip(patches, weights, strict=True) if site in one.ranks]
        if own:
            total = sum(weight for _, weight in own)
            parts = [weight * effective(one, site) for one, weight in own]
            found[site] = np.sum(parts, axis=0) / total
    return found


def error(found: dict[Site, Update], wanted: dict[Site, Matrix]) -> float:
    """Largest relative Frobenius error of any site."""
    assert found.keys() == wanted.keys()
    return max(
        float(np.linalg.norm(found[site].dense() - value) / np.linalg.norm(value))
        for site, value in wanted.items()
    )


def with_shared_a(patches: Sequence[Patch], seed: int) -> list[Patch]:
    """The same B over one A per site, as FFA trains them; one rank, own scales."""
    rng = np.random.default_rng(seed)
    shared = {site: drawn(rng, 3).a for site in (SITE, OTHER)}
    return [
        replace(
            one,
            factors={s: Factors(a=shared[s], b=drawn(rng, 3).b) for s in one.factors},
        )
        for one in patches
    ]


EVERY: tuple[Aggregation, ...] = (
    ExactMean(),
    Svd(rank=4, working_rank=12),
    Ffa(),
    FactorMean(),
    ZeroPad(rank=8),
    NormClip(norm=50.0),
    TrimmedMean(trim=2, columns=16),
    MedianOfMeans(groups=5, columns=16),
)
