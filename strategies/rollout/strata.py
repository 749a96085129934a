"""Strata: device classes as a first cohort saw them, and rates weighted over them.

Classes of fewer than two sampled devices are put together (collapsed strata, Cochran 1977, sec.
5A.12): no variance can be estimated from one device, and a class without any is still forecast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from strategies.learning.outcomes import DecisionReport, sort_reports
from strategies.rollout.intervals import Interval, wilson

FEWEST = 2
"""Sampled devices of a stratum."""
PSEUDO = 4
"""Devices with the pooled rate that are added to a stratum's own before its variance is taken.

Plain strata of few devices often show a rate of 0 or 1 and then no variance at all. Four is what
Agresti and Coull (1998) add to a single rate for the same reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClass:
    """What the server knows of a device class before a release.

    Attributes:
        devices: How many of the fleet are of it.
        retune_j: Joules that a retune takes one of them (simulated), from earlier releases or as
            priced; above 0. Only ratios between classes count once the cohort has retuned.
    """

    devices: int
    retune_j: float

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError(f"devices must be >= 1, got {self.devices}")
        if not 0 < self.retune_j < math.inf:
            raise ValueError(f"retune_j must be finite and > 0 J, got {self.retune_j}")


Fleet = Mapping[str, DeviceClass]
"""Device classes by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """One or more device classes and the sampled devices of them.

    Attributes:
        devices: Devices of the fleet.
        retune_j: Joules of all of them retuning, as known before.
        reports: The sampled devices' reports, at least `FEWEST`.
    """

    devices: int
    retune_j: float
    reports: tuple[DecisionReport, ...]

    @property
    def sampled(self) -> int:
        """Sampled devices."""
        return len(self.reports)

    @property
    def retuned(self) -> int:
        """Those of them that retuned."""
        return sum(report.retuned for report in self.reports)

    @property
    def unseen(self) -> float:
        """Share of its devices that were not sampled: the finite-population correction."""
        return 1 - self.sampled / self.devices

    def shrunk_rate(self, pooled: float) -> float:
        """Returns its retune rate with `PSEUDO` devices of the pooled rate added."""
        return (self.retuned + PSEUDO * pooled) / (self.sampled + PSEUDO)


def stratify(fleet: Fleet, cohort: Sequence[DecisionReport]) -> list[Stratum]:
    """Returns the strata of a cohort, classes of few sampled devices put together.

    Raises:
        ValueError: If a report is of an unknown class, a class has more reports than devices, or
            fewer than `FEWEST` devices reported.
    """
    of_class: dict[str, list[DecisionReport]] = {name: [] for name in sorted(fleet)}
    for report in sort_reports(list(cohort)):
        if report.device_class not in of_class:
            raise ValueError(
                f"device_class must be one of {list(of_class)}, got {report.device_class}"
            )
        of_class[report.device_class].append(report)
    for name, reports in of_class.items():
        if len(reports) > fleet[name].devices:
            raise ValueError(
                f"{name} has {fleet[name].devices} devices, got {len(reports)} reports"
            )
    if len(cohort) < FEWEST:
        raise ValueError(f"a cohort must be >= {FEWEST} devices, got {len(cohort)}")
    return [_stratum(fleet, names, of_class) for names in _collapsed(of_class)]


def _collapsed(of_class: Mapping[str, list[DecisionReport]]) -> list[list[str]]:
    """Returns names of classes that make up a stratum each."""
    groups = [[name] for name, reports in of_class.items() if len(reports) >= FEWEST]
    rest = [name for name, reports in of_class.items() if len(reports) < FEWEST]
    if sum(len(of_class[name]) for name in rest) >= FEWEST:
        return [*groups, rest]
    if rest:
        # too few even together: they join the smallest stratum
        smallest = min(groups, key=lambda names: (len(of_class[names[0]]), names))
        smallest.extend(rest)
    return groups


def _stratum(
    fleet: Fleet, names: Sequence[str], of_class: Mapping[str, list[DecisionReport]]
) -> Stratum:
    return Stratum(
        devices=sum(fleet[name].devices for name in names),
        retune_j=math.fsum(fleet[name].devices * fleet[name].retune_j for name in names),
        reports=tuple(report for name in names for report in of_class[name]),
    )


def pooled_rate(strata: Sequence[Stratum]) -> float:
    """Returns the fleet's estimated retune rate, strata weighted by their devices."""
    devices = sum(stratum.devices for stratum in strata)
    return weighted_rate(strata, [stratum.devices / devices for stratum in strata])


def weighted_rate(strata: Sequence[Stratum], weights: Sequence[float]) -> float:
    """Returns the mean of the strata's retune rates under weights that sum to 1."""
    pairs = zip(strata, weights, strict=True)
    return min(math.fsum(weight * one.retuned / one.sampled for one, weight in pairs), 1.0)


def rate_interval(strata: Sequence[Stratum], weights: Sequence[float]) -> Interval:
    """Returns the weighted retune rate with a stratified Wilson interval.

    Wilson's interval at the effective size ``p (1 - p) / Var(p)``, as Franco, Little, Louis and
    Slud (2019) recommend for complex samples; the variance is the stratified one with the
    finite-population correction, from rates shrunk towards the pooled one.
    """
    rate, pooled = weighted_rate(strata, weights), pooled_rate(strata)
    factors = [
        weight**2 * one.unseen / one.sampled for one, weight in zip(strata, weights, strict=True)
    ]
    if not any(factors):
        return Interval(value=rate, low=rate, high=rate)
    shrunk = [one.shrunk_rate(pooled) for one in strata]
    variance = math.fsum(
        factor * chance * (1 - chance) for factor, chance in zip(factors, shrunk, strict=True)
    )
    if sum(one.retuned for one in strata) in {0, sum(one.sampled for one in strata)}:
        # no estimate of the variance; its factor p (1 - p) drops out where all strata are alike
        return wilson(rate, 1 / math.fsum(factors))
    return wilson(rate, rate * (1 - rate) / variance)
