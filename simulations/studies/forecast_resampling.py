"""Forecasts of a study: first cohorts drawn again from runs in which every outcome is known.

All devices of a world, of all its seeds, count as one fleet for this, for only a fleet that is
several times as large as its first cohort has anything to forecast. Each part of a study has
releases of its own, by the same recipes; a cohort is a random sample of the whole, by device class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from fleettune.seeds import Purpose, stream
from simulations.results.device_means import finite
from strategies.learning.outcomes import DecisionReport
from strategies.rollout.first_cohort import MINIMUM, ForecastStudy, cohort_size, resample_cohorts
from strategies.rollout.intervals import wilson

COHORTS = 100
"""First cohorts drawn of every release."""
WIDEST = 0.1
"""Half-width of the retune rate above which a cohort grows: ten points."""
QUANTITY = "retune_rate"
_SPENT = ("energy_j_synthesise", "energy_j_probe", "energy_j_tune")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """What the cohorts of one release showed: as first drawn, and grown until `WIDEST`."""

    release: int
    name: str
    first: ForecastStudy
    grown: ForecastStudy


def resampled_releases(rows: pl.DataFrame) -> list[Resampled]:
    """Returns how first cohorts forecast every release that an arm's devices decided about.

    Releases of which fewer devices than a first cohort has decided are left out.

    Args:
        rows: An arm's rows with the columns of `simulations.results.derived_columns`.
    """
    found: list[Resampled] = []
    for (release,), here in rows.filter(pl.col("decided") == 1).group_by(
        "release", maintain_order=True
    ):
        version = int(str(release))
        if here.height <= MINIMUM:
            continue
        reports = [_report(row) for row in here.sort("device").iter_rows(named=True)]
        known = _retune_j(rows.filter(pl.col("release") < version), reports)
        size = cohort_size(len(reports))
        draws = [stream(0, Purpose.SAMPLING, version, kind) for kind in (0, 1)]
        found.append(
            Resampled(
                release=version,
                name=str(here["release_name"][0]),
                first=resample_cohorts(reports, known, size, COHORTS, draws[0]),
                grown=resample_cohorts(reports, known, size, COHORTS, draws[1], WIDEST),
            )
        )
    return sorted(found, key=lambda one: one.release)


def forecast_coverage(rows: pl.DataFrame) -> dict[str, Any]:
    """Returns the share of grown first cohorts whose interval covers the outcome.

    The interval is Wilson's over the cohorts drawn, given the devices that there are.
    """
    every = resampled_releases(rows)
    if not every:
        return {"mean": None, "ci95": [None, None]}
    share = sum(one.grown.quantities[QUANTITY].covered for one in every) / len(every)
    known = wilson(share, COHORTS * len(every))
    return {"mean": share, "ci95": [known.low, known.high]}


def forecast_half_width(rows: pl.DataFrame) -> dict[str, Any]:
    """Returns the mean half-width of grown first cohorts' retune rates, and least and largest."""
    widths = [one.grown.quantities[QUANTITY] for one in resampled_releases(rows)]
    if not widths:
        return {"mean": None, "ci95": [None, None]}
    means = [one.mean_half_width for one in widths]
    ends = [min(means), max(one.largest_half_width for one in widths)]
    return {"mean": finite(sum(means) / len(means)), "ci95": ends}


def _report(row: Mapping[str, Any]) -> DecisionReport:
    retuned = row["decision"] == "retune"
    return DecisionReport(
        release=row["release"],
        device_class=row["profile"],
        decision=row["decision"],
        energy_j=row["energy_j"],
        retune_j=sum(row[name] for name in _SPENT) if retuned else 0.0,
        down_bytes=row["down_bytes"],
    )


def _retune_j(earlier: pl.DataFrame, reports: list[DecisionReport]) -> dict[str, float]:
    """Returns joules of an earlier retune by class; the mean of all where a class had none."""
    spent = earlier.filter(pl.col("decision") == "retune").select(
        "profile", joules=pl.sum_horizontal(_SPENT)
    )
    overall = float(spent["joules"].to_numpy().mean())
    by_class = dict(spent.group_by("profile").agg(pl.col("joules").mean()).iter_rows())
    return {one.device_class: by_class.get(one.device_class, overall) for one in reports}
