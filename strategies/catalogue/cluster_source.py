"""Clustered catalogues: entries from the deltas that devices shared in this very run.

The server uses nothing of a user but the delta, and gives nobody's out: an entry is the mean of
several devices'. The deltas are the first arm's, and all arms are offered the same catalogue, as
all live with the releases that the first arm's fleet patch is folded into.

A delta is what a device's tune changed beyond what the server sent. Until a release has a catalogue
nothing was sent, without a fleet patch, so its deltas are whole patches, all against one base. Once
it has one, no more of its deltas are taken.

Patches are compared by a sketch of their effective updates, ``L' B A R`` with fixed Gaussian L and
R: factors of equal patches differ, products do not, and no dense product is made. k-means with
k-means++ starts (Arthur and Vassilvitskii 2007) groups the sketches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import merge_patches
from fleettune.catalogue.manifest import CLUSTER
from fleettune.data.tokens import Example
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.shapes import Shapes, Site, order
from strategies.aggregation.fleet_patch import NONE
from strategies.catalogue.entries import Entry, EntryTools
from strategies.catalogue.entry_questions import (
    check_questions,
    collect_own_answers,
    pick_questions,
)
from strategies.catalogue.explain import Explain, check_counts, check_worse
from strategies.catalogue.still_valid import EntryValidity

Floats = NDArray[np.float64]

_ITERATIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCatalogue:
    """A catalogue of clusters of shared deltas.

    Attributes:
        clusters: How many are looked for.
        members: Fewest devices of a cluster that has an entry, 2 or more.
        least: Deltas of a release without which it has no catalogue; they come one per device.
        most: Largest number of them that is kept, a sample drawn by key.
        rank: Largest rank of an entry.
        alpha: Its alpha.
        width: Rows and columns of the sketch by which deltas are compared, at every site.
        questions: What base and entries may be asked; text that no user wrote, for it goes to
            every device.
        explain: How entries are explained.
        worse: Nats per token by which a release may make an entry's own answers less likely and it
            is still reused.

    Raises:
        ValueError: If a value breaks its rule.
    """

    clusters: int
    members: int
    least: int
    most: int
    rank: int
    alpha: float
    width: int
    questions: tuple[str, ...]
    explain: Explain
    worse: float

    def __post_init__(self) -> None:
        check_counts(self, "rank", "width")
        check_worse(self.worse)
        check_questions(self.explain, self.questions)
        if not self.alpha > 0:
            raise ValueError(f"catalogue.alpha must be > 0, got {self.alpha}")
        for name in ("clusters", "members"):
            if getattr(self, name) < 2:
                raise ValueError(f"catalogue.{name} must be >= 2, got {getattr(self, name)}")
        needed = self.clusters * self.members
        if self.least < needed:
            raise ValueError(
                "catalogue.least must be >= catalogue.clusters times catalogue.members, "
                f"{needed} deltas, got {self.least}"
            )
        if self.most < self.least:
            raise ValueError(
                f"catalogue.most must be >= catalogue.least, {self.least} deltas, got {self.most}"
            )

    def check_fleet(self, devices: int, fleet_patch: str) -> None:
        """Raises ValueError if a fleet cannot share what the clusters are made of."""
        if self.least > devices:
            raise ValueError(
                f"catalogue.least must be at most fleet.devices, {devices}, each of which shares a "
                f"delta of a release, got {self.least}"
            )
        if fleet_patch != NONE:
            raise ValueError(
                f"catalogue=clusters needs fleet_patch={NONE}, got {fleet_patch}: deltas against "
                "a fleet patch, another one every round, are not patches to compare"
            )

    def check(self, shapes: Shapes) -> None:
        """Checks nothing: deltas of a fleet fit its model."""

    def make_entries(
        self, release: Manifest, before: EntryValidity | None, tools: EntryTools
    ) -> tuple[Entry, ...] | None:
        """Returns the entries of a release; None until enough of its deltas came.

        A partition is reused whole or made anew: with one of its clusters gone, the devices like
        that one would find entries of all others but of none like them.
        """
        if before is not None and before.whole:
            return before.valid
        if tools.shared.count(release.version) < self.least:
            return None
        return cluster_entries(tools.shared.of(release.version), self, tools.seed)

    def draw_questions(self, tools: EntryTools) -> tuple[str, ...]:
        """Returns questions of the list."""
        return pick_questions(self.explain, self.questions, tools.seed)

    def hold_out(
        self, entries: Sequence[Entry], release: Manifest, tools: EntryTools
    ) -> Mapping[str, tuple[Example, ...]]:
        """Returns the entries' own answers."""
        asked, most = self.draw_questions(tools), self.explain.new_tokens
        return collect_own_answers(asked, most, entries, release, tools)


def cluster_entries(
    patches: Sequence[Patch], how: ClusterCatalogue, seed: int
) -> tuple[Entry, ...]:
    """Returns one entry per cluster that has enough members: their mean update, recompressed.

    Args:
        patches: The shared deltas.
        how: How many clusters, and of what rank.
        seed: Key of sketch and starts.

    Raises:
        ValueError: If there are fewer patches than clusters.
    """
    if len(patches) < how.clusters:
        raise ValueError(
            f"catalogue.clusters must be at most the {len(patches)} shared deltas, "
            f"got {how.clusters}"
        )
    groups = kmeans(sketches(patches, how.width, seed), how.clusters, seed)
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
