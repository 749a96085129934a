"""Forecasts from first cohorts of made-up releases, and what the server spends on a report.

    python benchmarks/forecast.py [--quick] [FIGURE ...]

Prints one JSON line per figure. A release is a table of every device's outcome: eight classes,
retunes at a rate that differs between classes, joules of a retune that differ between classes by a
factor and within them lognormally. First cohorts are 2 %, at least 20 devices.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np

from fleettune.seeds import Purpose, stream
from lines import emit
from simulations.studies.forecast_resampling import half_width, resample_cohorts, size_needed
from strategies.learning.calibration import RetuneRule, RuleCalibration
from strategies.learning.decision_reports import DecisionReport
from strategies.learning.reuse_statistics import ReuseStatistics, collect_statistics
from strategies.rollout.settings import cohort_size

SHARES = (0.15, 0.10, 0.15, 0.15, 0.15, 0.05, 0.05, 0.20)
RATES = (0.02, 0.1, 0.3, 0.5, 0.9)
FLEETS = (1_000, 5_000, 20_000)
WIDEST = 0.1
EXPLORE = 0.05
MARGIN = 0.05
PRIOR = RetuneRule(intercept=0.0, weights=(("canary", 1.0), ("log_drift", 0.0)), threshold=0.5)


def release(seed: int, devices: int, rate: float) -> tuple[list[DecisionReport], dict[str, float]]:
    """Returns every device's report, and what a retune is known to take each class."""
    rng = stream(seed, Purpose.COEFFICIENTS, devices, round(1000 * rate))
    reports: list[DecisionReport] = []
    known: dict[str, float] = {}
    for place, share in enumerate(SHARES):
        name, odds = f"class_{place}", math.log(rate / (1 - rate)) + rng.normal()
        other_j, retune_j = 20 * rng.lognormal(0, 0.5), 150 * rng.lognormal(0, 0.7)
        known[name] = retune_j * rng.lognormal(0, 0.2)
        reports += [
            report(rng, name, 1 / (1 + math.exp(-odds)), (other_j, retune_j))
            for _ in range(round(devices * share))
        ]
    return reports, known


def report(
    rng: np.random.Generator, name: str, rate: float, typical_j: tuple[float, float]
) -> DecisionReport:
    """Returns one device's report; every retune is seen to gain something or not."""
    wanted, lucky = rng.random() < rate, rng.random() < EXPLORE
    canary = float(rng.normal(1.0 if wanted else 0.0, 0.5))
    retuned = bool(wanted or lucky)
    retune_j = float(typical_j[1] * rng.lognormal(0, 0.5)) if retuned else 0.0
    return DecisionReport(
        release=1,
        device_class=name,
        decision="retune" if retuned else "reuse",
        features=(("canary", canary), ("log_drift", -6.0)),
        propensity=1.0 if wanted else EXPLORE,
        explored=retuned and not wanted,
        drift=1e-6,
        gain=canary - 0.3 + float(rng.normal(0, 0.3)) if retuned else None,
        energy_j=float(typical_j[0] * rng.lognormal(0, 0.2)) + retune_j,
        retune_j=retune_j,
        down_bytes=2.7e8,
    )


def measure_coverage(quick: bool) -> None:
    """Prints per fleet and rate how often intervals cover the outcome, and how wide they are."""
    print_coverage("forecast_coverage", math.inf, quick)


def measure_grown(quick: bool) -> None:
    """Prints the same for cohorts that grow until the retune rate is within ten points."""
    print_coverage("forecast_within_ten_points", WIDEST, quick)


def print_coverage(figure: str, widest: float, quick: bool) -> None:
    """Prints one line per fleet and rate."""
    releases, cohorts = (2, 20) if quick else (5, 40)
    for devices in FLEETS[:2] if quick else FLEETS:
        for rate in RATES:
            studies = [
                resample_cohorts(
                    *release(seed, devices, rate),
                    cohort_size(devices),
                    cohorts,
                    stream(seed, Purpose.SAMPLING, devices),
                    widest,
                )
                for seed in range(releases)
            ]
            detail = {
                name: {
                    "covered": round(mean([one.quantities[name].covered for one in studies]), 3),
                    "half_width": round(
                        mean([one.quantities[name].mean_half_width for one in studies]), 3
                    ),
                }
                for name in studies[0].quantities
            }
            sampled = round(mean([one.sampled for one in studies]), 1)
            extra = {"sampled": sampled, "releases": releases, "cohorts_each": cohorts}
            value = detail["retune_rate"]["covered"]
            emit(f"{figure}_{devices}_{rate}", value, detail | extra)


def measure_sizes(quick: bool) -> None:
    """Prints the devices that a half-width of ten points takes, by rate, beside 2 %."""
    for devices in FLEETS:
        size = cohort_size(devices)
        detail = {
            "cohort": size,
            "needed": {rate: size_needed(rate, devices, WIDEST) for rate in RATES},
            "half_width": {rate: round(half_width(rate, size, devices), 3) for rate in RATES},
        }
        emit(f"cohort_for_ten_points_{devices}", size_needed(0.5, devices, WIDEST), detail)


def measure_aggregation(quick: bool) -> None:
    """Prints the microseconds that the server spends per report: sums, and a fit of the rule."""
    count, parts = (10_000, 100) if quick else (100_000, 1000)
    reports, _ = release(0, count, 0.1)
    started = time.perf_counter()
    whole = collect_statistics(reports)
    gathered_s = time.perf_counter() - started
    size = -(-len(reports) // parts)
    pieces = [
        collect_statistics(reports[start : start + size]) for start in range(0, len(reports), size)
    ]
    started = time.perf_counter()
    merged = sum(pieces, ReuseStatistics())
    merged_s = time.perf_counter() - started
    started = time.perf_counter()
    calibrated = RuleCalibration(prior=PRIOR, margin=MARGIN).fit(reports)
    fitted_s = time.perf_counter() - started
    detail = {
        "reports": len(reports),
        "merge_us_per_part": round(1e6 * merged_s / len(pieces), 1),
        "fit_us_per_report": round(1e6 * fitted_s / len(reports), 2),
        "fitted_on": calibrated.devices,
        "same_in_parts": merged == whole,
    }
    emit("aggregation_us_per_report", round(1e6 * gathered_s / len(reports), 2), detail)


def mean(values: list[float]) -> float:
    """Returns the mean."""
    return math.fsum(values) / len(values)


def main() -> None:
    """Measures the figures asked for, all by default."""
    parser = argparse.ArgumentParser(description="Forecasts and aggregation on the server.")
    parser.add_argument("--quick", action="store_true", help="fewer releases and reports")
    parser.add_argument("figures", nargs="*", help="names of figures; all by default")
    asked = parser.parse_intermixed_args()
    figures: dict[str, Callable[[bool], None]] = {
        "aggregation": measure_aggregation,
        "sizes": measure_sizes,
        "coverage": measure_coverage,
        "grown": measure_grown,
    }
    for name in asked.figures or figures:
        figures[name](asked.quick)


if __name__ == "__main__":
    main()
