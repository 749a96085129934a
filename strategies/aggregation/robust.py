"""Trimmed means and medians by coordinate: a few wrong devices cannot move them far.

Coordinates are those of a sketch ``update @ basis``, with one orthonormal basis for all devices,
drawn per site. A basis of all inputs is a rotation and loses nothing; a smaller one keeps the part
of an update that lies in its span. All devices count alike: a weight that a device reports would
be a way in. Memory does not grow with the replies: a trimmed mean keeps the extremes that it will
leave out, a median is over the means of a fixed number of groups.

Sources: coordinate-wise trimmed mean, Yin et al. 2018 (arXiv:1803.01498); median of means over
groups of devices, Chen et al. 2017 (arXiv:1705.05491), here by coordinate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleettune.adapters.updates import Matrix, Update
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES
from strategies.aggregation.aggregate import Aggregate, SiteDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmedMean:
    """The mean of every coordinate without its largest and its smallest values.

    Attributes:
        trim: Values left out at either end; as many wrong devices are withstood. A site that not
            more than twice as many devices adapted has no aggregate.
        columns: Of the sketch.
        seed: Key of its basis.
    """

    trim: int
    columns: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        _check_positive(trim=self.trim, columns=self.columns)

    @property
    def weights(self) -> str:
        """Every device counts as one."""
        return "uniform"

    def open(self) -> Aggregate[_Sketches]:
        """Returns an aggregate of nothing yet."""
        return Aggregate(add_site=self._add, mean_site=self._mean, least=2 * self.trim + 1)

    def _add(self, held: _Sketches | None, delta: SiteDelta, _weight: float) -> _Sketches:
        """Returns the sum of what lies between the extremes, and these, with one sketch more.

        An extreme value is never added, so a huge one leaves no rounding behind.
        """
        before = held or _no_sketches(delta, self.columns, self.seed)
        seen, count = _sketch(delta, before.basis), before.count + 1
        middle, *ends = before.kept or (0 * seen,)
        ends.append(seen)
        if count > 2 * self.trim:
            ordered = np.sort(np.stack(ends), axis=0)
            middle = middle + ordered[self.trim]
            ends = [ordered[place] for place in range(len(ends)) if place != self.trim]
        return _Sketches(before.basis, (middle, *ends), count)

    def _mean(self, held: _Sketches, _weight: float) -> Update:
        left = held.kept[0] / (held.count - 2 * self.trim)
        return Update(left=left, right=held.basis.T)


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianOfMeans:
    """The median of every coordinate over the means of groups of devices.

    Devices of a site are dealt to its groups in turn. Fewer than half of the groups may hold a
    wrong device; with no more devices than groups it is the median over devices.

    Attributes:
        groups: How many groups.
        columns: Of the sketch.
        seed: Key of its basis.
    """

    groups: int
    columns: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        _check_positive(groups=self.groups, columns=self.columns)

    @property
    def weights(self) -> str:
        """Every device counts as one."""
        return "uniform"

    def open(self) -> Aggregate[_Sketches]:
        """Returns an aggregate of nothing yet."""
        return Aggregate(add_site=self._add, mean_site=self._mean)

    def _add(self, held: _Sketches | None, delta: SiteDelta, _weight: float) -> _Sketches:
        """Returns the sums of the groups with one sketch more."""
        before = held or _no_sketches(delta, self.columns, self.seed)
        seen, place = _sketch(delta, before.basis), before.count % self.groups
        kept = list(before.kept)
        if before.count < self.groups:
            kept.append(seen)
        else:
            kept[place] = kept[place] + seen
        return _Sketches(before.basis, tuple(kept), before.count + 1)

    def _mean(self, held: _Sketches, _weight: float) -> Update:
        sizes = [len(range(place, held.count, self.groups)) for place in range(len(held.kept))]
        means = [one / size for one, size in zip(held.kept, sizes, strict=True)]
        median = np.asarray(np.median(np.stack(means), axis=0), dtype=np.float64)
        return Update(left=median, right=held.basis.T)


@dataclass(frozen=True, slots=True, eq=False)
class _Sketches:
    """One site: the orthonormal columns of its sketch, what is kept of sketches, their number."""

    basis: Matrix
    kept: tuple[Matrix, ...] = ()
    count: int = 0


def _no_sketches(delta: SiteDelta, columns: int, seed: int) -> _Sketches:
    """Returns a site's start, whose basis is the same for every device and round."""
    site, n_in = delta.site, delta.factors.a.shape[1]
    rng = stream(seed, Purpose.SKETCH, site.layer, MODULES.index(site.module))
    return _Sketches(np.linalg.qr(rng.normal(size=(n_in, min(columns, n_in)))).Q)


def _sketch(delta: SiteDelta, basis: Matrix) -> Matrix:
    update = delta.update()
    return update.left @ (update.right @ basis)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"aggregation.{name} must be >= 1, got {value}")
