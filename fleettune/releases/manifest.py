"""Manifests: what a device is told of a release, a published version of the backbone.

Messages carry manifests, never weights. For every earlier version a manifest holds the drift
statistics of each matrix: count, sum of squares and sum of fourth powers of the difference. From
them a device decides without holding two models (docs/methods.md#drift-statistics-in-the-manifest).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleettune.records import OMIT_DEFAULT, Types, from_record
from fleettune.releases.guidance import Guidance
from fleettune.releases.model_files import site_weights
from fleettune.shapes import Shapes, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Count, sum of squares and sum of fourth powers of a set of numbers; a monoid.

    Attributes:
        count: How many numbers.
        squares: Sum of their squares.
        fourths: Sum of their fourth powers.
    """

    count: int = 0
    squares: float = 0.0
    fourths: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            count=self.count + other.count,
            squares=self.squares + other.squares,
            fourths=self.fourths + other.fourths,
        )

    def magnitude(self, k_var: float) -> float:
        """Returns ``mean(x^2) + k_var * std(x^2)`` with the sample deviation.

        Source: docs/methods.md#drift-statistics-in-the-manifest.
        """
        if self.count < 2:
            raise ValueError(f"a magnitude needs at least 2 numbers, got {self.count}")
        mean = self.squares / self.count
        variance = max(self.fourths - self.count * mean * mean, 0.0) / (self.count - 1)
        return mean + k_var * variance**0.5


def moments(values: NDArray[np.float32]) -> Moments:
    """Returns the moments of an array, summed in double precision."""
    squares = np.square(values.astype(np.float64).ravel())
    return Moments(
        count=values.size,
        squares=float(squares.sum()),
        fourths=float(np.square(squares).sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDrift:
    """How far one matrix moved from an earlier version."""

    layer: int
    module: str
    drift: Moments

    @property
    def site(self) -> Site:
        """The matrix."""
        return Site(self.layer, self.module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far a release moved from one earlier version, matrix by matrix."""

    since: int
    sites: tuple[SiteDrift, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDelta:
    """What brings a device from one earlier version to a release.

    Attributes:
        since: The earlier version.
        kind: Its form, as one word: ``int8``, ``fp16``, ``fp16_int8``, ``low_rank``, ``unchanged``.
        size_bytes: Bytes of it.
    """

    since: int
    kind: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a device is told of a release.

    Attributes:
        version: 0 for the first release, then counting up.
        name: What the vendor calls it.
        path: Folder of the release in the store.
        digest: SHA-256 of the files that decide what it computes
            (`fleettune.releases.model_files`).
        size_bytes: Bytes of a full download.
        bits: Mean bits of a weight in a full download of a quantised release; None for others.
        parent: Version that it was made from; None if it was made from none of them.
        shapes: Shapes of the backbone.
        template: Text around question and answer.
        max_tokens: Longest example, in tokens.
        drifts: Drift since every earlier version.
        deltas: Deltas on offer, at most one since each earlier version.
        guidance: What the server says about reuse and retune; None: nothing.
        corpus: SHA-256 of the vendor's own text that it was trained on; empty without one.
        folded: Version of the newest release among this one and those it was made from that has a
            fleet patch in its weights; None without one. What the fleet learned before is in them.
    """

    version: int
    name: str
    path: str
    digest: str
    size_bytes: int
    shapes: Shapes
    template: str
    max_tokens: int
    drifts: tuple[Drift, ...] = ()
    deltas: tuple[ReleaseDelta, ...] = field(default=(), metadata=OMIT_DEFAULT)
    bits: float | None = field(default=None, metadata=OMIT_DEFAULT)
    parent: int | None = field(default=None, metadata=OMIT_DEFAULT)
    guidance: Guidance | None = field(default=None, metadata=OMIT_DEFAULT)
    folded: int | None = field(default=None, metadata=OMIT_DEFAULT)
    corpus: str = field(default="", metadata=OMIT_DEFAULT)

    def delta_since(self, version: int) -> ReleaseDelta | None:
        """Returns the delta since an earlier version; None if none is on offer."""
        return next((delta for delta in self.deltas if delta.since == version), None)

    def drift_since(self, version: int) -> Mapping[Site, Moments]:
        """Returns the drift of every matrix since an earlier version.

        Raises:
            ValueError: If the manifest does not cover that version.
        """
        for drift in self.drifts:
            if drift.since == version:
                return {entry.site: entry.drift for entry in drift.sites}
        covered = [drift.since for drift in self.drifts]
        raise ValueError(f"release {self.version} holds drift since {covered}, not since {version}")


def drift_between(earlier: Path, later: Path, shapes: Shapes, since: int) -> Drift:
    """Returns the drift statistics of one release since another."""
    pairs = zip(
        site_weights(earlier, shapes.layers), site_weights(later, shapes.layers), strict=True
    )
    return Drift(
        since=since,
        sites=tuple(
            SiteDrift(layer=site.layer, module=site.module, drift=moments(new - old))
            for (site, old), (_, new) in pairs
        ),
    )


MANIFEST_TYPES: Types = {
    kind.__name__: kind
    for kind in (Manifest, Shapes, Drift, SiteDrift, Moments, ReleaseDelta, Guidance)
}


def read_manifest(record: object, where: str = "release") -> Manifest:
    """Returns the manifest that `fleettune.records.to_record` wrote; errors name `where` it stood.

    Raises:
        ValueError: If it is not a manifest, or a field is unknown, missing or mistyped.
    """
    manifest = from_record(record, MANIFEST_TYPES, where)
    if not isinstance(manifest, Manifest):
        raise ValueError(f"{where} must be Manifest, got {type(manifest).__name__}")
    return manifest
