"""Gathering: decisions add up while replies stream in, in any order and over any split.

Counts and sketches hold integers, so they are the same for every order. What a fit needs beside
them, retunes of known gain, is a multiset: kept only where somebody fits, and sorted by value
before anything is computed from it. No number of a device is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from strategies.learning.calibration import known_retunes
from strategies.learning.decision_reports import DecisionReport, sort_reports
from strategies.learning.reuse_statistics import (
    ReuseStatistics,
    collect_statistics,
    read_reuse_statistics,
)

AT_ONCE = 256
"""Reports that wait to be added together; a sum per report would copy the sketches every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What rules are fitted from; a commutative monoid with `Evidence()` as zero.

    Attributes:
        judged: Retunes whose gain is known, in an order of their own values.
        could_reuse: Versions of which some device could have reused where it retuned, or did.
    """

    judged: tuple[DecisionReport, ...] = ()
    could_reuse: frozenset[int] = frozenset()

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            judged=tuple(sort_reports([*self.judged, *other.judged])),
            could_reuse=self.could_reuse | other.could_reuse,
        )

    def of(self, release: int) -> tuple[DecisionReport, ...]:
        """Returns the retunes of one release."""
        return tuple(report for report in self.judged if report.release == release)


def collect_evidence(reports: Iterable[DecisionReport]) -> Evidence:
    """Returns the evidence of some reports; it is the sum of the evidence of each."""
    every = list(reports)
    chosen = [report for report in every if report.retuned or report.reused]
    return Evidence(
        judged=tuple(known_retunes(every)),
        could_reuse=frozenset(one.release for one in chosen if one.propensity < 1),
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

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return {
            "statistics": self.statistics.plain(),
            "judged": [asdict(report) for report in self.evidence.judged],
            "could_reuse": sorted(self.evidence.could_reuse),
        }


def read_gathered(plain: Mapping[str, Any]) -> DecisionTotals:
    """Returns what `DecisionTotals.plain` wrote."""
    return DecisionTotals(
        statistics=read_reuse_statistics(plain["statistics"]),
        evidence=Evidence(
            judged=tuple(map(read_report, plain["judged"])),
            could_reuse=frozenset(plain["could_reuse"]),
        ),
    )


def read_report(plain: Mapping[str, Any]) -> DecisionReport:
    """Returns a report that JSON held."""
    read: dict[str, Any] = dict(plain)
    read["features"] = tuple((name, value) for name, value in plain["features"])
    return DecisionReport(**read)


@dataclass(slots=True, kw_only=True)
class DecisionAccumulator:
    """Decisions while they come in.

    Attributes:
        keeps: Whether somebody fits rules, so that retunes of known gain are kept.
        waiting: Reports that are not added yet, fewer than `AT_ONCE`.
        total: Those that are.
        kept: Evidence so far, in the order of arrival.
        could_reuse: As in `Evidence`.
        staged: Version of which all reports are kept, for a forecast; None without one.
        cohort: Those reports, in the order of arrival.
    """

    keeps: bool = False
    staged: int | None = None
    cohort: list[DecisionReport] = field(default_factory=list[DecisionReport])
    waiting: list[DecisionReport] = field(default_factory=list[DecisionReport])
    total: ReuseStatistics = field(default_factory=ReuseStatistics)
    kept: list[DecisionReport] = field(default_factory=list[DecisionReport])
    could_reuse: frozenset[int] = frozenset()

    def add(self, report: DecisionReport) -> None:
        """Adds one decision."""
        self.waiting.append(report)
        if report.release == self.staged:
            self.cohort.append(report)
        if len(self.waiting) == AT_ONCE:
            self._settle()

    def closed(self) -> DecisionTotals:
        """Returns what all of them came to."""
        self._settle()
        evidence = Evidence(judged=tuple(sort_reports(self.kept)), could_reuse=self.could_reuse)
        return DecisionTotals(statistics=self.total, evidence=evidence)

    def _settle(self) -> None:
        self.total += collect_statistics(self.waiting)
        if self.keeps:
            found = collect_evidence(self.waiting)
            self.kept += found.judged
            self.could_reuse |= found.could_reuse
        self.waiting.clear()
