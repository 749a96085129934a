"""Decisions of a fleet add up while replies stream in, in any order and over any split.

Counts and sketches (`strategies.learning.quantile_sketch`) hold integers, so they are a commutative
monoid to the last bit. They cannot undo a bias: gains are those of devices that retuned, most of
them because their rule asked for it; `strategies.learning.calibration` weights them, a sketch does
not. A fit needs the retunes of known gain as well. They are a multiset: kept only where somebody
fits, and sorted by value before anything is computed from them. No number of a device is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from strategies.learning.calibration import known_retunes
from strategies.learning.decision_reports import DecisionReport, sort_reports
from strategies.learning.quantile_sketch import Sketch, sketch_values

AT_ONCE = 256
"""Reports that wait to be added together; a sum per report would copy the sketches every time."""
MICROJOULES = 1_000_000
"""In a joule."""
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
            drift=_merge(self.drift, other.drift),
            gain=_merge(self.gain, other.gain),
        )


def collect_statistics(reports: Iterable[DecisionReport]) -> ReuseStatistics:
    """Returns the statistics of some reports, read once; they are the sum of those of each."""
    every = list(reports)
    drift: dict[Key, list[float]] = {}
    gain: dict[Key, list[float]] = {}
    for report in every:
        key = (report.release, report.device_class)
        if report.drift is not None:
            drift.setdefault(key, []).append(report.drift)
        if report.gain is not None:
            gain.setdefault(key, []).append(report.gain)
    return ReuseStatistics(tally=tally_reports(every), drift=_sketches(drift), gain=_sketches(gain))


def _sketches(values: Mapping[Key, list[float]]) -> ByClass:
    return tuple((key, sketch_values(values[key])) for key in sorted(values))


def _merge(mine: ByClass, theirs: ByClass) -> ByClass:
    merged = dict(mine)
    for key, sketch in theirs:
        merged[key] = merged[key] + sketch if key in merged else sketch
    return tuple(sorted(merged.items(), key=lambda entry: entry[0]))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What rules are fitted from; a commutative monoid with `Evidence()` as zero.

    Attributes:
        retunes: Those whose gain is known, in an order of their own values.
        could_reuse: Versions of which some device could have reused where it retuned, or did;
            ascending.
    """

    retunes: tuple[DecisionReport, ...] = ()
    could_reuse: tuple[int, ...] = ()

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            retunes=tuple(sort_reports([*self.retunes, *other.retunes])),
            could_reuse=tuple(sorted({*self.could_reuse, *other.could_reuse})),
        )

    def of(self, release: int) -> tuple[DecisionReport, ...]:
        """Returns the retunes of one release."""
        return tuple(report for report in self.retunes if report.release == release)


def collect_evidence(reports: Iterable[DecisionReport]) -> Evidence:
    """Returns the evidence of some reports; it is the sum of the evidence of each."""
    every = list(reports)
    chosen = [report for report in every if report.retuned or report.reused]
    return Evidence(
        retunes=tuple(known_retunes(every)),
        could_reuse=tuple(sorted({one.release for one in chosen if one.propensity < 1})),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionTotals:
    """What the decisions of some replies came to; a commutative monoid, `DecisionTotals()` is zero.

    Attributes:
        statistics: Counts, joules and sketches.
        evidence: What rules are fitted from; empty where nobody fits.
    """

    statistics: ReuseStatistics = field(default_factory=ReuseStatistics)
    evidence: Evidence = field(default_factory=Evidence)

    def __add__(self, other: DecisionTotals) -> DecisionTotals:
        return DecisionTotals(
            statistics=self.statistics + other.statistics,
            evidence=self.evidence + other.evidence,
        )


@dataclass(slots=True, kw_only=True)
class DecisionAccumulator:
    """Decisions while they come in.

    Attributes:
        keeps: Whether somebody fits rules, so that retunes of known gain are kept.
        staged: Version of which all reports are kept, for a forecast; None without one.
        cohort: Those reports, in the order of arrival.
        waiting: Reports that are not added yet, fewer than `AT_ONCE`.
        statistics: The sums of those that are.
        retunes: Those of known gain, kept for a fit, in the order of arrival.
        could_reuse: As `Evidence`.
    """

    keeps: bool = False
    staged: int | None = None
    cohort: list[DecisionReport] = field(default_factory=list[DecisionReport])
    waiting: list[DecisionReport] = field(default_factory=list[DecisionReport])
    statistics: ReuseStatistics = field(default_factory=ReuseStatistics)
    retunes: list[DecisionReport] = field(default_factory=list[DecisionReport])
    could_reuse: set[int] = field(default_factory=set[int])

    def add(self, report: DecisionReport) -> None:
        """Adds one decision."""
        self.waiting.append(report)
        if report.release == self.staged:
            self.cohort.append(report)
        if len(self.waiting) == AT_ONCE:
            self._settle()

    def totals(self) -> DecisionTotals:
        """Returns what all of them came to."""
        self._settle()
        evidence = Evidence(
            retunes=tuple(sort_reports(self.retunes)), could_reuse=tuple(sorted(self.could_reuse))
        )
        return DecisionTotals(statistics=self.statistics, evidence=evidence)

    def _settle(self) -> None:
        self.statistics += collect_statistics(self.waiting)
        if self.keeps:
            found = collect_evidence(self.waiting)
            self.retunes += found.retunes
            self.could_reuse |= set(found.could_reuse)
        self.waiting.clear()
