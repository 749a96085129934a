"""Clusters: entries of a catalogue from the deltas that devices shared, without any corpus.

Patches are compared by a sketch of their effective updates, ``L' B A R`` with fixed Gaussian L and
R: factors of equal patches differ, products do not, and no dense product is made. k-means with
k-means++ starts (Arthur and Vassilvitskii 2007) groups the sketches; a cluster's patch is the mean
update of its members, recompressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import merge_patches
from fleettune.catalogue.manifest import CLUSTER
from fleettune.seeds import Purpose, stream
from fleettune.shapes import Site, order
from strategies.catalogue.entries import Entry

Floats = NDArray[np.float64]

_ITERATIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering:
    """How shared deltas become entries.

    Attributes:
        clusters: How many.
        rank: Rank of a cluster's patch.
        alpha: Its alpha.
        width: Rows and columns of a site's sketch.
        members: Fewest patches of a cluster that has an entry.
        seed: Key of sketch and starts.
    """

    clusters: int
    rank: int
    alpha: float
    width: int = 4
    members: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clusters", "rank", "alpha", "width", "members"):
            if not getattr(self, name) > 0:
                raise ValueError(f"catalogue.{name} must be > 0, got {getattr(self, name)}")


def cluster_entries(patches: Sequence[Patch], how: Clustering) -> tuple[Entry, ...]:
    """Returns one entry per cluster that has enough members.

    Raises:
        ValueError: If there are fewer patches than clusters.
    """
    if len(patches) < how.clusters:
        raise ValueError(
            f"catalogue.clusters must be at most the {len(patches)} shared deltas, "
            f"got {how.clusters}"
        )
    groups = kmeans(sketches(patches, how.width, how.seed), how.clusters, how.seed)
    found: list[Entry] = []
    for number in range(how.clusters):
        own = [patch for patch, group in zip(patches, groups, strict=True) if group == number]
        if len(own) >= how.members:
            patch = merge_patches(own, [1 / len(own)] * len(own), how.rank, how.alpha)
            found.append(Entry(name=f"cluster{number}", origin=CLUSTER, patch=patch))
    return tuple(found)


def sketches(patches: Sequence[Patch], width: int, seed: int) -> Floats:
    """Returns one row per patch, ``(patches, sites * width ** 2)``; absent sites are zero."""
    plain = [patch.untie() for patch in patches]
    sites = sorted({site for patch in plain for site in patch.factors}, key=order)
    rows = np.zeros((len(plain), len(sites), width * width))
    for place, site in enumerate(sites):
        held = [(row, patch) for row, patch in enumerate(plain) if site in patch.factors]
        left, right = _projections(held[0][1], site, place, width, seed)
        for row, patch in held:
            item = patch.factors[site]
            small = (left @ item.b.astype(float)) @ (item.a.astype(float) @ right)
            rows[row, place] = (patch.scale(site) * small).ravel()
    return rows.reshape(len(plain), -1)


def kmeans(points: Floats, clusters: int, seed: int) -> NDArray[np.int64]:
    """Returns the number of every point's cluster, ``(points,)``; equal inputs, equal numbers."""
    centres = _starts(points, clusters, stream(seed, Purpose.CATALOGUE, 3))
    groups = np.zeros(len(points), dtype=np.int64)
    for _ in range(_ITERATIONS):
        squares = np.square(points[:, None] - centres[None]).sum(axis=2)
        nearest = squares.argmin(axis=1).astype(np.int64)
        members = [points[nearest == number] for number in range(clusters)]
        centres = np.stack(
            [
                own.mean(axis=0) if len(own) else centres[number]
                for number, own in enumerate(members)
            ]
        )
        if np.array_equal(nearest, groups):
            break
        groups = nearest
    return groups


def _starts(points: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    """Returns starting centres, each far from those before with k-means++'s probability."""
    chosen = [int(rng.integers(len(points)))]
    while len(chosen) < clusters:
        apart = np.square(points[:, None] - points[chosen][None]).sum(axis=2).min(axis=1)
        total = float(apart.sum())
        share = apart / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(rng.choice(len(points), p=share)))
    return points[chosen]


def _projections(
    patch: Patch, site: Site, place: int, width: int, seed: int
) -> tuple[Floats, Floats]:
    item = patch.factors[site]
    rng = stream(seed, Purpose.CATALOGUE, 2, place)
    left = rng.normal(size=(width, item.b.shape[0])) / np.sqrt(width)
    return left, rng.normal(size=(item.a.shape[1], width)) / np.sqrt(width)
