"""Sweeps: curves over worlds that differ in one number, for the page of a study."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from simulations.experiment.study_settings import Sweep
from simulations.report.plots import Figure, axis, figure, spread
from simulations.results.device_means import mean_by, mean_with_interval, split_arms
from simulations.studies.equal_quality_cost import needed_for

COLOURS = ("#0072B2", "#555555", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


Families = Mapping[str, Sequence[str]]


def sweep_figure(
    sweep: Sweep, worlds: Mapping[str, pl.DataFrame], families: Families, metric: tuple[str, float]
) -> Figure:
    """Returns a line per arm with 95 % intervals over devices; none where quality is reached.

    Args:
        sweep: What is drawn.
        worlds: Rows by world, with derived columns.
        families: Arms that do the same with more of something, from the lowest.
        metric: The column that quality is read from, and its sign.
    """
    order = sorted(sweep.points, key=lambda world: sweep.points[world])
    held = [(sweep.points[world], split_arms(worlds[world])) for world in order if world in worlds]
    traces = [
        _line(sweep, arm, held, families, metric, COLOURS[place % len(COLOURS)])
        for place, arm in enumerate(sweep.arms)
        if any(arm in arms for _, arms in held)
    ]
    return figure(
        traces,
        height=420,
        xaxis=axis(html.escape(sweep.x)),
        yaxis=axis(html.escape(sweep.column), rangemode="tozero", exponentformat="SI"),
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
    )


def _line(
    sweep: Sweep,
    arm: str,
    held: Sequence[tuple[float, Mapping[str, pl.DataFrame]]],
    families: Families,
    metric: tuple[str, float],
    colour: str,
) -> Figure:
    known = [(x, arms) for x, arms in held if arm in arms and sweep.column in arms[arm].columns]
    if sweep.reach:
        values = [_reached(sweep, arm, arms, families, metric) for _, arms in known]
        points: list[tuple[float | None, ...]] = []
    else:
        means = [_mean(arms[arm], sweep.column) for _, arms in known]
        values = [one["mean"] for one in means]
        points = [(one["mean"], *one["ci95"]) for one in means]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": html.escape(arm),
        "x": [x for x, _ in known],
        "y": values,
        "error_y": spread(points, colour),
        "line": {"color": colour, "width": 1.5},
        "marker": {"color": colour, "size": 9},
        "cliponaxis": False,
    }


def _mean(rows: pl.DataFrame, column: str) -> Mapping[str, Any]:
    return mean_with_interval(mean_by(rows, "device", column)[1], seed=0)


def _reached(
    sweep: Sweep,
    arm: str,
    arms: Mapping[str, pl.DataFrame],
    families: Families,
    metric: tuple[str, float],
) -> float | None:
    """Returns the mean need of an arm's family at the quality of the last arm; None: never."""
    own = next((tuple(members) for members in families.values() if arm in members), (arm,))
    ladder = [member for member in own if member in arms]
    column, sign = metric
    quality = [sign * _nanmean(arms[member], column) for member in ladder]
    need = [_nanmean(arms[member], sweep.column) for member in ladder]
    target = sign * _nanmean(arms[sweep.arms[-1]], column)
    found = needed_for(target, np.array(quality), np.array(need))
    return found if math.isfinite(found) else None


def _nanmean(rows: pl.DataFrame, column: str) -> float:
    return float(np.nanmean(mean_by(rows, "device", column)[1]))
