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

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Matrix, Update, updates_of
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Site
from strategies.aggregation.exact_mean import dense


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
        _check(trim=self.trim, columns=self.columns)

    @property
    def weights(self) -> str:
        """Every device counts as one."""
        return "uniform"

    @property
    def is_exact(self) -> bool:
        """False."""
        return False

    def open(self) -> SketchAggregate:
        """Returns an aggregate of nothing yet."""
        return SketchAggregate(rule=self)

    def least(self) -> int:
        """Returns how many devices a site needs."""
        return 2 * self.trim + 1

    def taken(self, kept: list[Matrix], seen: Matrix, count: int) -> list[Matrix]:
        """Returns the sum of what lies between the extremes, and these, with one sketch more.

        An extreme value is never added, so a huge one leaves no rounding behind.
        """
        middle, *ends = kept or [0 * seen]
        ends.append(seen)
        if count < self.least():
            return [middle, *ends]
        ordered = np.sort(np.stack(ends), axis=0)
        rest = [ordered[place] for place in range(len(ends)) if place != self.trim]
        return [middle + ordered[self.trim], *rest]

    def result(self, kept: list[Matrix], count: int) -> Matrix:
        """Returns the trimmed mean of a site's sketches."""
        return kept[0] / (count - 2 * self.trim)


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
        _check(groups=self.groups, columns=self.columns)

    @property
    def weights(self) -> str:
        """Every device counts as one."""
        return "uniform"

    @property
    def is_exact(self) -> bool:
        """False."""
        return False

    def open(self) -> SketchAggregate:
        """Returns an aggregate of nothing yet."""
        return SketchAggregate(rule=self)

    def least(self) -> int:
        """Returns how many devices a site needs."""
        return 1

    def taken(self, kept: list[Matrix], seen: Matrix, count: int) -> list[Matrix]:
        """Returns the sums of the groups with one sketch more."""
        if count <= self.groups:
            return [*kept, seen]
        place = (count - 1) % self.groups
        return [one + seen if index == place else one for index, one in enumerate(kept)]

    def result(self, kept: list[Matrix], count: int) -> Matrix:
        """Returns the median over the groups of a site's sketches."""
        sizes = [len(range(place, count, self.groups)) for place in range(len(kept))]
        means = [one / size for one, size in zip(kept, sizes, strict=True)]
        return np.asarray(np.median(np.stack(means), axis=0), dtype=np.float64)


@dataclass(slots=True, eq=False)
class _Sketches:
    """What is kept of one site's sketches."""

    basis: Matrix
    kept: list[Matrix] = field(default_factory=list[Matrix])
    count: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class SketchAggregate:
    """Sketches by site, as much of them as the rule keeps."""

    rule: TrimmedMean | MedianOfMeans
    sites: dict[Site, _Sketches] = field(default_factory=dict[Site, _Sketches])

    @property
    def counts(self) -> dict[Site, int]:
        """How many devices adapted each site that has an aggregate."""
        least = self.rule.least()
        return {site: entry.count for site, entry in self.sites.items() if entry.count >= least}

    def add(self, patch: Patch, weight: float = 1.0) -> None:
        """Adds one device's delta."""
        for site, update in updates_of(patch).items():
            if site not in self.sites:
                self.sites[site] = _Sketches(self._basis(site, update.right.shape[1]))
            entry = self.sites[site]
            entry.count += 1
            seen = update.left @ (update.right @ entry.basis)
            entry.kept = self.rule.taken(entry.kept, seen, entry.count)

    def updates(self) -> dict[Site, Update]:
        """Returns the aggregate of every site, back from its sketch."""
        return {
            site: Update(
                left=self.rule.result(self.sites[site].kept, count), right=self.sites[site].basis.T
            )
            for site, count in self.counts.items()
        }

    def mean(self) -> dict[Site, NDArray[np.float32]]:
        """Returns it as dense matrices."""
        return dense(self.updates())

    def _basis(self, site: Site, n_in: int) -> Matrix:
        """Returns orthonormal columns, the same for every device and round."""
        rng = stream(self.rule.seed, Purpose.SKETCH, site.layer, MODULES.index(site.module))
        return np.linalg.qr(rng.normal(size=(n_in, min(self.rule.columns, n_in)))).Q


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"aggregation.{name} must be >= 1, got {value}")
