"""Forecast: what a release will cost the whole fleet, from a first cohort.

Source: docs/methods.md#forecast-of-a-release.

- **Retune rate.** Stratified by device class, with Wilson's interval at the effective sample size.
  Wald's and bootstrap intervals have no width where none or all of a small cohort retuned; Wilson's
  covers at 20 devices and at rates near 0 and 1.
- **Joules** are those of everything but retuning, plus those of retuning. The first are a
  stratified mean with Student's interval. The second are a rate again: of the joules that the fleet
  would spend if everybody retuned, the share that is spent. What a retune takes a class is known
  beforehand (earlier releases) up to one factor, which the cohort's retunes settle. Without that
  knowledge a cohort in which nobody retuned would forecast no joules for it with no doubt: at a
  rate of 5 % and 20 devices, intervals from the cohort's joules alone covered 6 of 10 outcomes.
- **Downlink bytes** are a stratified mean with Student's interval. With 20 devices it covers 87 to
  93 % where a fifth of them loads ten times more than the others, so what is known of a payload
  beforehand belongs into the classes.

All intervals have the finite-population correction, and limits combine by squares (Zou and Donner
2008), so a skewed rate gives skewed joules. Classes can be finer than hardware: what the server
knows of a device beforehand, such as the release that it holds, sharpens everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from strategies.learning.decision_reports import DecisionReport, sort_reports
from strategies.learning.decision_sums import Tally
from strategies.rollout.intervals import Interval, student_quantile, wilson

FEWEST = 2
"""Sampled devices of a stratum.

No variance can be estimated from one device, so classes with fewer are put together (collapsed
strata, Cochran 1977, sec. 5A.12); a class without any is still forecast."""
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
    return [_stratum(fleet, names, of_class) for names in _collapse(of_class)]


def _collapse(of_class: Mapping[str, list[DecisionReport]]) -> list[list[str]]:
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


SPREAD = 0.25
"""Squared relative deviation of a retune's joules within a class before any was seen, worth two
retunes: half of the typical joules, a wide guess."""
FEWEST_DEVICES = 8
"""Of a cohort: with fewer, Student's interval may rest on fewer than 4 degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOutcome:
    """What a release came to over a whole fleet.

    Attributes:
        devices: Devices.
        retune_rate: Share of them that retuned.
        energy_j: Joules of all of them (simulated).
        down_bytes: Bytes received by all of them.
    """

    devices: int
    retune_rate: float
    energy_j: float
    down_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a release is expected to come to, with 95 % intervals.

    Attributes:
        devices: Devices of the fleet.
        sampled: Devices of the cohort.
        retune_rate: Share of all devices that will have retuned.
        energy_j: Joules of all devices (simulated).
        down_bytes: Bytes received by all devices.
    """

    devices: int
    sampled: int
    retune_rate: Interval
    energy_j: Interval
    down_bytes: Interval


QUANTITIES = ("retune_rate", "energy_j", "down_bytes")


def covers(forecast: Forecast, outcome: FleetOutcome) -> dict[str, bool]:
    """Returns for every forecast quantity whether its interval covers the outcome."""
    return {name: getattr(forecast, name).covers(getattr(outcome, name)) for name in QUANTITIES}


def forecast_rows(forecast: Forecast, outcome: FleetOutcome) -> list[dict[str, Any]]:
    """Returns one row per quantity, as JSON can hold it: forecast, limits, outcome, covered."""
    covered = covers(forecast, outcome)
    return [
        {
            "quantity": name,
            **asdict(getattr(forecast, name)),
            "outcome": getattr(outcome, name),
            "covered": covered[name],
        }
        for name in QUANTITIES
    ]


def forecast(fleet: Fleet, cohort: Sequence[DecisionReport]) -> Forecast:
    """Returns what a fleet will do with a release that a random cohort has taken over.

    Args:
        fleet: All devices, those of the cohort included, by class.
        cohort: The cohort's reports of one release.

    Raises:
        ValueError: If the cohort is of several releases, too small, or not of this fleet.
    """
    if len(cohort) < FEWEST_DEVICES:
        raise ValueError(f"a cohort must be >= {FEWEST_DEVICES} devices, got {len(cohort)}")
    releases = sorted({report.release for report in cohort})
    if len(releases) > 1:
        raise ValueError(f"a cohort must report one release, got {releases}")
    strata = stratify(fleet, cohort)
    devices = sum(one.devices for one in strata)
    return Forecast(
        devices=devices,
        sampled=len(cohort),
        retune_rate=rate_interval(strata, [one.devices / devices for one in strata]),
        energy_j=_energy(strata),
        down_bytes=_total(strata, lambda report: report.down_bytes),
    )


UNKNOWN_J = 1.0
"""Stands for a retune's joules where nobody ever retuned: the cohort's own then count alone."""


def typical_retune_j(tally: Tally, classes: Iterable[str]) -> dict[str, float]:
    """Returns what a retune took each class so far; the mean over all where a class had none."""
    overall, known = tally.of().joules_per_retune or UNKNOWN_J, tally.by_class()
    own = {name: counts.joules_per_retune for name, counts in known.items()}
    return {name: own.get(name) or overall for name in classes}


def _total(strata: Sequence[Stratum], amount: Callable[[DecisionReport], float]) -> Interval:
    """Stratified total of an amount per device, at least 0, with Student's interval."""
    totals: list[float] = []
    variances: list[float] = []
    for one in strata:
        amounts = [amount(report) for report in one.reports]
        mean = math.fsum(amounts) / one.sampled
        squares = math.fsum((value - mean) ** 2 for value in amounts) / (one.sampled - 1)
        totals.append(one.devices * mean)
        variances.append(one.devices**2 * one.unseen * squares / one.sampled)
    value, spread = math.fsum(totals), _student(strata) * math.sqrt(math.fsum(variances))
    return Interval(value=value, low=max(value - spread, 0.0), high=value + spread)


def _student(strata: Sequence[Stratum]) -> float:
    return student_quantile(sum(one.sampled for one in strata) - len(strata))


def _energy(strata: Sequence[Stratum]) -> Interval:
    """Joules of everything but retuning, plus the spent share of all possible retunes' joules."""
    rest = _total(strata, lambda one: one.energy_j - one.retune_j if one.retuned else one.energy_j)
    possible_j = math.fsum(one.retune_j for one in strata)
    weights = [one.retune_j / possible_j for one in strata]
    spent, pooled = rate_interval(strata, weights), pooled_rate(strata)
    factor, spread = _retune_costs(strata)
    costs = spread * math.fsum(
        weight**2 * one.unseen / one.sampled * one.shrunk_rate(pooled)
        for one, weight in zip(strata, weights, strict=True)
    )
    scale_j = factor * possible_j
    others = (rest.high - rest.value) ** 2 + (_student(strata) * scale_j) ** 2 * costs
    value = rest.value + scale_j * spent.value
    low = value - math.sqrt(others + (scale_j * (spent.value - spent.low)) ** 2)
    high = value + math.sqrt(others + (scale_j * (spent.high - spent.value)) ** 2)
    return Interval(value=value, low=max(low, 0.0), high=high)


def _retune_costs(strata: Sequence[Stratum]) -> tuple[float, float]:
    """Returns the factor on the known joules of a retune, and their squared relative deviation.

    The factor is a ratio estimate over the cohort's retunes, each weighted by the devices that it
    stands for; 1 where nobody retuned. With it the forecast joules of retuning are the stratified
    total of what the cohort reported.
    """
    seen = [
        (one.devices / one.sampled, report.retune_j, one.retune_j / one.devices)
        for one in strata
        for report in one.reports
        if report.retuned
    ]
    known_j = math.fsum(weight * typical_j for weight, _, typical_j in seen)
    factor = math.fsum(weight * spent_j for weight, spent_j, _ in seen) / known_j if seen else 1.0
    if not factor:
        return 0.0, 0.0
    squares = math.fsum((spent_j / (factor * typical_j) - 1) ** 2 for _, spent_j, typical_j in seen)
    return factor, (squares + 2 * SPREAD) / (max(len(seen) - 1, 0) + 2)
