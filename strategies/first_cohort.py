"""First cohorts: how many devices receive a release first, of which classes, and what that shows.

How well a cohort forecasts is found out by drawing many of them from a release of which every
device's outcome is known, and comparing each forecast with the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from strategies.forecast import (
    QUANTITIES,
    FleetOutcome,
    Forecast,
    covers,
    forecast,
    outcome_of,
)
from strategies.intervals import wilson
from strategies.outcomes import DecisionReport, in_order
from strategies.strata import DeviceClass

SHARE = 0.02
"""Of the fleet that receives a release first."""
MINIMUM = 20
"""Devices of the smallest first cohort."""


def cohort_size(devices: int, share: float = SHARE, minimum: int = MINIMUM) -> int:
    """Returns how many devices receive a release first: a share, but no fewer than a minimum.

    Raises:
        ValueError: If an argument is out of range.
    """
    if devices < 1:
        raise ValueError(f"devices must be >= 1, got {devices}")
    if not 0 < share <= 1:
        raise ValueError(f"share of a first cohort must be > 0 and <= 1, got {share}")
    if minimum < 1:
        raise ValueError(f"minimum of a first cohort must be >= 1 device, got {minimum}")
    # without the hair 0.07 * 100 would ask for 8
    return min(devices, max(minimum, math.ceil(share * devices * (1 - 1e-12))))


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


def allocated(classes: Mapping[str, int], size: int) -> dict[str, int]:
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
    for report in in_order(list(reports)):
        found.setdefault(report.device_class, []).append(report)
    return dict(sorted(found.items()))


def drawn(
    of_class: Mapping[str, Sequence[DecisionReport]], size: int, rng: np.random.Generator
) -> list[DecisionReport]:
    """Returns a stratified random cohort, without replacement, of what `by_class` gave."""
    counts = allocated({name: len(members) for name, members in of_class.items()}, size)
    return [
        of_class[name][int(place)]
        for name, count in counts.items()
        for place in rng.choice(len(of_class[name]), size=count, replace=False)
    ]


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
        devices: Devices of the fleet.
        size: Devices of a cohort.
        cohorts: Cohorts drawn.
        retune_rate: What came true, as a share of the devices.
        quantities: How the forecast of each quantity did, by `strategies.forecast.QUANTITIES`.
    """

    devices: int
    size: int
    cohorts: int
    retune_rate: float
    quantities: Mapping[str, Coverage]


def resampled(
    reports: Sequence[DecisionReport],
    retune_j: Mapping[str, float],
    size: int,
    cohorts: int,
    rng: np.random.Generator,
) -> ForecastStudy:
    """Returns how forecasts from random first cohorts compare with the outcome.

    Args:
        reports: The reports of one release, one per device of the fleet.
        retune_j: Joules of a retune by class, as known before that release.
        size: Devices of a cohort.
        cohorts: Cohorts to draw.
        rng: Where they are drawn from.

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
    forecasts = [forecast(fleet, drawn(of_class, size, rng)) for _ in range(cohorts)]
    return ForecastStudy(
        devices=outcome.devices,
        size=size,
        cohorts=cohorts,
        retune_rate=outcome.retune_rate,
        quantities={name: _coverage(name, forecasts, outcome) for name in QUANTITIES},
    )


def _coverage(name: str, forecasts: Sequence[Forecast], outcome: FleetOutcome) -> Coverage:
    scale = 1.0 if name == "retune_rate" else getattr(outcome, name)
    widths = [getattr(one, name).half_width / scale if scale else 0.0 for one in forecasts]
    return Coverage(
        covered=sum(covers(one, outcome)[name] for one in forecasts) / len(forecasts),
        mean_half_width=math.fsum(widths) / len(widths),
        largest_half_width=max(widths),
    )
