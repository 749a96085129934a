"""Reuse-or-retune statistics of a fleet: tallies, and sketches of drift and quality change.

Everything in them is an integer count (`strategies.learning.reuse_statistics`,
`strategies.learning.quantile_sketch`), so they are a commutative monoid to the last bit: reports
can come in any order and be split over any number of servers. What they cannot do is undo a bias:
gains are those of devices that retuned, most of them because their rule asked for it;
`strategies.learning.calibration` weights them, a sketch does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from strategies.learning.decision_reports import DecisionReport
from strategies.learning.quantile_sketch import Sketch, read_sketch, sketch_values

Key = tuple[int, str]
"""Version of a release, and device class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What some devices did; a commutative monoid with `Counts()` as zero.

    Attributes:
        devices: Devices that reported.
        reused: Those that kept their patch.
        retuned: Those that retuned, at random or not.
        explored: Those of them that retuned at random.
        retune_uj: Microjoules of all retunes (simulated).
        energy_uj: Microjoules of taking over the release, all stages (simulated).
        down_bytes: Bytes received for it.
    """

    devices: int = 0
    reused: int = 0
    retuned: int = 0
    explored: int = 0
    retune_uj: int = 0
    energy_uj: int = 0
    down_bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        names = [field.name for field in fields(self)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def retune_rate(self) -> float | None:
        """Share of the devices that retuned; None of no devices."""
        return self.retuned / self.devices if self.devices else None

    @property
    def reuse_rate(self) -> float | None:
        """Share of the devices that reused; None of no devices."""
        return self.reused / self.devices if self.devices else None

    @property
    def retune_j(self) -> float:
        """Joules of all retunes (simulated)."""
        return self.retune_uj / MICROJOULES

    @property
    def energy_j(self) -> float:
        """Joules of taking over the release (simulated)."""
        return self.energy_uj / MICROJOULES

    @property
    def joules_per_retune(self) -> float | None:
        """Mean joules of a retune; None where nobody retuned."""
        return self.retune_j / self.retuned if self.retuned else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts by release and device class; a commutative monoid with `Tally()` as zero.

    Attributes:
        cells: One entry per release and class that reported, in order; given in any order, they are
            sorted, so equal tallies compare equal.
    """

    cells: tuple[tuple[Key, Counts], ...] = ()

    def __post_init__(self) -> None:
        keys = [key for key, _ in self.cells]
        if len(set(keys)) < len(keys):
            raise ValueError(f"cells must name each release and class once, got {keys}")
        kept = (cell for cell in self.cells if cell[1] != Counts())
        object.__setattr__(self, "cells", tuple(sorted(kept, key=lambda cell: cell[0])))

    def __add__(self, other: Tally) -> Tally:
        mine, theirs = dict(self.cells), dict(other.cells)
        return Tally(
            cells=tuple(
                (key, mine.get(key, Counts()) + theirs.get(key, Counts()))
                for key in mine.keys() | theirs.keys()
            )
        )

    def of(self, release: int | None = None, device_class: str | None = None) -> Counts:
        """Returns the counts of a release, of a class, of both, or of everything."""
        chosen = (
            counts
            for (version, name), counts in self.cells
            if release in {None, version} and device_class in {None, name}
        )
        return sum(chosen, Counts())

    def by_release(self) -> dict[int, Counts]:
        """Returns the counts of every release, in order."""
        return {
            version: self.of(release=version) for version in sorted({k[0] for k, _ in self.cells})
        }

    def by_class(self) -> dict[str, Counts]:
        """Returns the counts of every device class, in order of names."""
        return {name: self.of(device_class=name) for name in sorted({k[1] for k, _ in self.cells})}

    def plain(self) -> list[dict[str, Any]]:
        """Returns the cells as JSON can hold them."""
        return [
            {"release": version, "device_class": name, **asdict(counts)}
            for (version, name), counts in self.cells
        ]


ByClass = tuple[tuple[Key, Sketch], ...]
"""((version of a release, device class), sketch), ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReuseStatistics:
    """What the server keeps of all reports; a commutative monoid, `ReuseStatistics()` is zero.

    Attributes:
        tally: Counts and joules by release and device class.
        drift: The drift that rules saw, by release and device class.
        gain: Nats per token that retuning gained, by the same, where a device saw it.
    """

    tally: Tally = field(default_factory=Tally)
    drift: ByClass = ()
    gain: ByClass = ()

    def __add__(self, other: ReuseStatistics) -> ReuseStatistics:
        return ReuseStatistics(
            tally=self.tally + other.tally,
            drift=_merged(self.drift, other.drift),
            gain=_merged(self.gain, other.gain),
        )

    def plain(self) -> dict[str, Any]:
        """Returns them as JSON can hold them."""
        return {
            "tally": self.tally.plain(),
            "drift": _plain(self.drift),
            "gain": _plain(self.gain),
        }


def read_reuse_statistics(plain: Mapping[str, Any]) -> ReuseStatistics:
    """Returns what `ReuseStatistics.plain` wrote."""
    return ReuseStatistics(
        tally=read_tally(plain["tally"]), drift=_read(plain["drift"]), gain=_read(plain["gain"])
    )


def collect_statistics(reports: Iterable[DecisionReport], alpha: float = 0.01) -> ReuseStatistics:
    """Returns the statistics of some reports; they are the sum of the statistics of each.

    Args:
        reports: Read once.
        alpha: Relative error of the sketches.
    """
    every = list(reports)
    drift: dict[Key, list[float]] = {}
    gain: dict[Key, list[float]] = {}
    for report in every:
        key = (report.release, report.device_class)
        if report.drift is not None:
            drift.setdefault(key, []).append(report.drift)
        if report.gain is not None:
            gain.setdefault(key, []).append(report.gain)
    return ReuseStatistics(
        tally=tally_reports(every), drift=_sketches(drift, alpha), gain=_sketches(gain, alpha)
    )


def _sketches(values: Mapping[Key, list[float]], alpha: float) -> ByClass:
    return tuple((key, sketch_values(values[key], alpha)) for key in sorted(values))


def _merged(mine: ByClass, theirs: ByClass) -> ByClass:
    merged = dict(mine)
    for key, sketch in theirs:
        merged[key] = merged[key] + sketch if key in merged else sketch
    return tuple(sorted(merged.items(), key=lambda entry: entry[0]))


def _plain(sketches: ByClass) -> list[dict[str, Any]]:
    return [
        {"release": version, "device_class": name, **sketch.plain()}
        for (version, name), sketch in sketches
    ]


def _read(plain: Iterable[Mapping[str, Any]]) -> ByClass:
    return tuple(((entry["release"], entry["device_class"]), read_sketch(entry)) for entry in plain)


MICROJOULES = 1_000_000
"""In a joule."""


def read_tally(plain: Iterable[Mapping[str, Any]]) -> Tally:
    """Returns the tally that `Tally.plain` wrote."""
    cells: list[tuple[Key, Counts]] = []
    for cell in plain:
        counts = {name: value for name, value in cell.items() if name not in _NAMES}
        cells.append(((cell["release"], cell["device_class"]), Counts(**counts)))
    return Tally(cells=tuple(cells))


_NAMES = ("release", "device_class")


def tally_reports(reports: Iterable[DecisionReport]) -> Tally:
    """Returns the tally of some reports, read once; it is the sum of the tallies of each."""
    seen: Counter[tuple[Key, str]] = Counter()
    for report in reports:
        key = (report.release, report.device_class)
        seen[key, "devices"] += 1
        seen[key, "reused"] += report.reused
        seen[key, "retuned"] += report.retuned
        seen[key, "explored"] += report.explored
        seen[key, "retune_uj"] += round(report.retune_j * MICROJOULES)
        seen[key, "energy_uj"] += round(report.energy_j * MICROJOULES)
        seen[key, "down_bytes"] += round(report.down_bytes)
    names = [field.name for field in fields(Counts)]
    return Tally(
        cells=tuple(
            (key, Counts(**{name: seen[key, name] for name in names}))
            for key in {key for key, _ in seen}
        )
    )
