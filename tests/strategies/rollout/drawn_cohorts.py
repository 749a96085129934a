"""First cohorts drawn again from fleets in which every outcome is known, to test forecasts.

How well a cohort forecasts is found out by drawing many of them from a release of which every
device's outcome is known, and comparing each forecast with the outcome.

All devices of a world, of all its seeds, count as one fleet for this, for only a fleet that is
several times as large as its first cohort has anything to forecast. Each part of a study has
releases of its own, by the same recipes; a cohort is a random sample of the whole, by device class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from strategies.learning.decision_reports import DecisionReport, sort_reports
from strategies.rollout.forecast import (
    QUANTITIES,
    DeviceClass,
    Fleet,
    FleetOutcome,
    Forecast,
    covers,
    forecast,
)
from strategies.rollout.intervals import wilson


def outcome_of(reports: Iterable[DecisionReport]) -> FleetOutcome:
    """Returns what the reports of all devices come to.

    Raises:
        ValueError: If there are none.
    """
    every = list(reports)
    if not every:
        raise ValueError("an outcome needs the report of at least one device, got none")
    return FleetOutcome(
        devices=len(every),
        retune_rate=sum(report.retuned for report in every) / len(every),
        energy_j=math.fsum(report.energy_j for report in every),
        down_bytes=math.fsum(report.down_bytes for report in every),
    )


COHORTS = 100
"""First cohorts drawn of every release."""
WIDEST = 0.1
"""Half-width of the retune rate above which a cohort grows: ten points."""
Queue = Mapping[str, Sequence[DecisionReport]]
"""A whole fleet's reports by class, each class in a random order."""


def half_width(rate: float, size: int, devices: int) -> float:
    """Returns the half-width of a retune rate's interval from a cohort of a fleet, unstratified."""
    unseen = 1 - size / devices
    return wilson(rate, size / unseen).half_width if unseen else 0.0


def size_needed(rate: float, devices: int, widest: float) -> int:
    """Returns the smallest cohort whose retune rate has an interval of at most a half-width.

    Args:
        rate: Retune rate that is expected; 0.5 is the worst.
        devices: Devices of the fleet.
        widest: Half-width aimed at, for example 0.1 for ten points.
    """
    if not 0 < widest < 1:
        raise ValueError(f"a half-width aimed at must be between 0 and 1, got {widest}")
    sizes = range(1, devices)
    return next((n for n in sizes if half_width(rate, n, devices) <= widest), devices)


def allocate(classes: Mapping[str, int], size: int) -> dict[str, int]:
    """Returns how many of each class a cohort takes: in proportion, largest remainders first.

    Raises:
        ValueError: If the cohort is larger than the fleet, or below 1 device.
    """
    devices = sum(classes.values())
    if not 1 <= size <= devices:
        raise ValueError(f"a cohort must be 1 to {devices} devices, got {size}")
    taken = {name: size * count // devices for name, count in sorted(classes.items())}
    # whole numbers throughout: remainders of a division, ties by name
    order = sorted(taken, key=lambda name: (-(size * classes[name] % devices), name))
    for name in order[: size - sum(taken.values())]:
        taken[name] += 1
    return taken


def by_class(reports: Iterable[DecisionReport]) -> dict[str, list[DecisionReport]]:
    """Returns the reports of each device class, names ascending, in an order of their values."""
    found: dict[str, list[DecisionReport]] = {}
    for report in sort_reports(list(reports)):
        found.setdefault(report.device_class, []).append(report)
    return dict(sorted(found.items()))


def shuffle_classes(
    of_class: Mapping[str, Sequence[DecisionReport]], rng: np.random.Generator
) -> Queue:
    """Returns what `by_class` gave, each class in a random order."""
    return {
        name: [members[int(place)] for place in rng.permutation(len(members))]
        for name, members in of_class.items()
    }


def take_cohort(queue: Queue, size: int) -> list[DecisionReport]:
    """Returns a stratified random cohort, without replacement: the first reports of each class."""
    counts = allocate({name: len(members) for name, members in queue.items()}, size)
    return [report for name, count in counts.items() for report in queue[name][:count]]


def forecast_within(fleet: Fleet, queue: Queue, size: int, widest: float) -> Forecast:
    """Returns the forecast of a cohort that grows until the retune rate is known well enough.

    A cohort whose interval is too wide is enlarged to the size that its own rate asks for, by a
    tenth at least: what a server does that holds a release. The interval takes no notice of having
    been looked at before.

    Args:
        fleet: All devices, by class.
        queue: Where cohorts come from.
        size: Devices of the first one.
        widest: Largest half-width of the retune rate's interval.
    """
    devices = sum(len(members) for members in queue.values())
    while True:
        found = forecast(fleet, take_cohort(queue, size))
        rate = found.retune_rate
        if rate.half_width <= widest or size == devices:
            return found
        needed = size_needed(rate.value, devices, widest)
        size = min(devices, max(needed, math.ceil(1.1 * size)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How one quantity's forecasts did over many cohorts.

    Attributes:
        covered: Share of the cohorts whose interval covers the outcome.
        mean_half_width: Mean half-width: of a rate as it is, of joules and bytes over the outcome.
        largest_half_width: The largest one.
    """

    covered: float
    mean_half_width: float
    largest_half_width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastStudy:
    """What resampled first cohorts show.

    Attributes:
        sampled: Devices of a cohort, on average.
        retune_rate: What came true, as a share of the devices.
        quantities: How the forecast of each quantity did, by
            `strategies.rollout.forecast.QUANTITIES`.
    """

    sampled: float
    retune_rate: float
    quantities: Mapping[str, Coverage]


def resample_cohorts(
    reports: Sequence[DecisionReport],
    retune_j: Mapping[str, float],
    size: int,
    cohorts: int,
    rng: np.random.Generator,
    widest: float = math.inf,
) -> ForecastStudy:
    """Returns how forecasts from random first cohorts compare with the outcome.

    Args:
        reports: The reports of one release, one per device of the fleet.
        retune_j: Joules of a retune by class, as known before that release.
        size: Devices of a cohort.
        cohorts: Cohorts to draw.
        rng: Where they are drawn from.
        widest: Half-width of the retune rate's interval above which a cohort is enlarged.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if cohorts < 1:
        raise ValueError(f"cohorts must be >= 1, got {cohorts}")
    outcome, of_class = outcome_of(reports), by_class(reports)
    fleet = {
        name: DeviceClass(devices=len(members), retune_j=retune_j[name])
        for name, members in of_class.items()
    }
    forecasts = [
        forecast_within(fleet, shuffle_classes(of_class, rng), size, widest) for _ in range(cohorts)
    ]
    return ForecastStudy(
        sampled=sum(one.sampled for one in forecasts) / cohorts,
        retune_rate=outcome.retune_rate,
        quantities={name: _cover(name, forecasts, outcome) for name in QUANTITIES},
    )


def _cover(name: str, forecasts: Sequence[Forecast], outcome: FleetOutcome) -> Coverage:
    scale = 1.0 if name == "retune_rate" else getattr(outcome, name)
    widths = [getattr(one, name).half_width / scale if scale else 0.0 for one in forecasts]
    return Coverage(
        covered=sum(covers(one, outcome)[name] for one in forecasts) / len(forecasts),
        mean_half_width=math.fsum(widths) / len(widths),
        largest_half_width=max(widths),
    )
