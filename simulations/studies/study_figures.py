"""The charts of a study's page: arms of a world, curves over worlds, decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from simulations.experiment.headlines import HEADLINES
from simulations.experiment.study_settings import Sweep
from simulations.report.plots import (
    COLOURS,
    REFERENCE_COLOUR,
    Figure,
    draw_all_bars,
    make_axis,
    make_curve,
    make_figure,
)
from simulations.results.derived_columns import SCORE
from simulations.results.device_means import (
    average_by,
    average_known,
    estimate_mean,
    split_arms,
)
from simulations.studies.claim_measures import find_need
from simulations.studies.decision_measures import LABEL
from simulations.studies.judge import Arms
from simulations.studies.study_tables import StudyArm, list_deciders

FAMILY_COLOURS = (REFERENCE_COLOUR, *COLOURS, "#882255", "#999933", "#44AA99", "#AA4499")
SWEEP_COLOURS = (COLOURS[0], REFERENCE_COLOUR, *COLOURS[1:5])
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
"""Families beyond the colours take the next symbol."""
ENDS = ("always_reuse", "always_retune")
"""Arms at the ends of the chord."""
_LOW_LEGEND = {"orientation": "h", "yanchor": "top", "x": 0}
_NO_TITLE = {"l": 70, "r": 20, "t": 20, "b": 60}

Families = Mapping[str, Sequence[str]]
"""Arms that do the same with more and more of something, by a name for them."""


def group_arms(arms: Sequence[str], families: Families) -> dict[str, list[str]]:
    """Returns the arms that exist by family; an arm of none makes one of its own."""
    found = {
        family: [arm for arm in members if arm in arms] for family, members in families.items()
    }
    taken = {arm for members in found.values() for arm in members}
    found |= {arm: [arm] for arm in arms if arm not in taken}
    return {family: members for family, members in found.items() if members}


def draw_pareto(arms: Mapping[str, StudyArm], families: Families, metric: str) -> Figure:
    """Draws quality over simulated joules of tuning: a point per arm, a line along each family.

    An arm without quality has no point. A family's line follows the order in which the study names
    its arms.
    """
    traces: list[Figure] = []
    for place, (family, members) in enumerate(group_arms(list(arms), families).items()):
        colour = FAMILY_COLOURS[place % len(FAMILY_COLOURS)]
        symbol = SYMBOLS[place // len(FAMILY_COLOURS) % len(SYMBOLS)]
        known = {
            name: arms[name]
            for name in members
            if arms[name].quality["mean"] is not None and arms[name].tuning_j[0] is not None
        }
        if known:
            traces.append(_draw_family(family, known, {"color": colour, "symbol": symbol}))
    title = "simulated J of probing and tuning, mean per device"
    return make_figure(
        traces,
        height=620,
        xaxis=make_axis(title, rangemode="tozero", exponentformat="SI"),
        yaxis=make_axis(f"{HEADLINES[metric].words}\n(higher is better)"),
        legend=_LOW_LEGEND | {"y": -0.14},
        margin=_NO_TITLE,
    )


def _draw_family(family: str, arms: Mapping[str, StudyArm], look: Mapping[str, str]) -> Figure:
    quality = [arm.quality for arm in arms.values()]
    joules = [arm.tuning_j for arm in arms.values()]
    return make_curve(
        family,
        [one[0] for one in joules],
        [one["mean"] for one in quality],
        mode="lines+markers" if len(arms) > 1 else "markers",
        text=list(arms),
        hovertemplate=Markup("%{text}: %{y:.3f} for %{x:.4s}J<extra></extra>"),
        error_x=draw_all_bars(joules, look["color"]),
        error_y=draw_all_bars([(one["mean"], *one["ci95"]) for one in quality], look["color"]),
        line={"color": look["color"], "width": 1.5, "dash": "dot"},
        marker={**look, "size": 10, "line": {"color": "white", "width": 1}},
        cliponaxis=False,
    )


def draw_sweep(
    sweep: Sweep, worlds: Mapping[str, pl.DataFrame], families: Families, metric: str
) -> Figure:
    """Draws a line per arm over worlds that differ in one number, with 95 % intervals.

    Where the sweep is about equal quality, a point is what an arm's family needs to come to the
    quality of the sweep's last arm, without an interval; none where it never does.

    Args:
        sweep: What is drawn.
        worlds: Rows by world, with derived columns.
        families: Arms that do the same with more of something, from the lowest.
        metric: The headline metric.
    """
    order = sorted(sweep.points, key=lambda world: sweep.points[world])
    held = [(sweep.points[world], split_arms(worlds[world])) for world in order if world in worlds]
    traces: list[Figure] = []
    for place, arm in enumerate(sweep.arms):
        if not any(arm in arms for _, arms in held):
            continue
        known = [(x, arms) for x, arms in held if arm in arms and sweep.column in arms[arm].columns]
        if sweep.equal_quality:
            points = [
                (_read_need(sweep, arm, arms, families, metric), None, None) for _, arms in known
            ]
        else:
            points = [_estimate_mean(arms[arm], sweep.column) for _, arms in known]
        colour = SWEEP_COLOURS[place % len(SWEEP_COLOURS)]
        curve = make_curve(
            arm,
            [x for x, _ in known],
            [point[0] for point in points],
            mode="lines+markers",
            error_y=draw_all_bars(points, colour),
            line={"color": colour, "width": 1.5},
            marker={"color": colour, "size": 9},
            cliponaxis=False,
        )
        traces.append(curve)
    return make_figure(
        traces,
        height=420,
        xaxis=make_axis(sweep.x),
        yaxis=make_axis(sweep.column, rangemode="tozero", exponentformat="SI"),
        legend=_LOW_LEGEND | {"y": -0.2},
        margin=_NO_TITLE,
    )


def _estimate_mean(rows: pl.DataFrame, column: str) -> tuple[float | None, ...]:
    """Returns a column's mean per device, and the ends of its interval."""
    devices, means = average_by(rows, "device", column)
    found = estimate_mean(means, devices, seed=0)
    return found["mean"], *found["ci95"]


def _read_need(sweep: Sweep, arm: str, arms: Arms, families: Families, metric: str) -> float | None:
    """Returns the mean need of an arm's family at the quality of the last arm; None: never."""
    own = next((tuple(members) for members in families.values() if arm in members), (arm,))
    ladder = [member for member in own if member in arms]
    head = HEADLINES[metric]
    quality = [head.sign * _average(arms[member], head.column) for member in ladder]
    need = [_average(arms[member], sweep.column) for member in ladder]
    target = head.sign * _average(arms[sweep.arms[-1]], head.column)
    found = find_need(target, np.array(quality), np.array(need))
    return found if math.isfinite(found) else None


def _average(rows: pl.DataFrame, column: str) -> float:
    return float(np.nanmean(average_by(rows, "device", column)[1]))


def draw_chord(arms: Arms, metric: str) -> Figure:
    """Draws quality over retunes per device, with the chord between reuse and retune always."""
    head = HEADLINES[metric]
    points: dict[str, tuple[float, float]] = {}
    for name in list_deciders(arms):
        rows = arms[name]
        quality = average_known(head.sign * average_by(rows, "device", head.column)[1])
        if quality is not None:
            points[name] = float(rows["retuned"].sum()) / rows["device"].n_unique(), quality
    look: dict[str, Any] = {"mode": "markers"}
    look["hovertemplate"] = Markup("%{x:.2f} retunes: %{y:.3f}<extra></extra>")
    traces = [
        make_curve(name, [x], [y], marker=_colour(place) | {"size": 11}, **look)
        for place, (name, (x, y)) in enumerate(points.items())
    ]
    if all(end in points for end in ENDS):
        x, y = zip(*(points[end] for end in ENDS), strict=True)
        traces.insert(0, make_curve("chord", x, y, line={"color": "#9aa5b1", "dash": "dash"}))
    return make_figure(
        traces,
        height=480,
        xaxis=make_axis("retunes per device, first tune left out"),
        yaxis=make_axis("quality\n(higher is better)"),
    )


def _colour(place: int) -> dict[str, Any]:
    return {"color": FAMILY_COLOURS[place % len(FAMILY_COLOURS)]}


def draw_scores(rows: pl.DataFrame, margin: float) -> Figure:
    """Draws what an arm decided by, by release, apart for decisions that a retune helps."""
    known = rows.filter((pl.col("decided") == 1) & pl.col(SCORE).is_not_null())
    halves = {
        "a retune helps": (known.filter(pl.col(LABEL) > margin), 2),
        "it does not": (known.filter(pl.col(LABEL) <= margin), 1),
    }
    traces = [
        {
            "type": "box",
            "name": name,
            "x": part["release_name"].to_list(),
            "y": [round(value, 6) for value in part[SCORE].to_list()],
            "marker": _colour(place) | {"size": 4},
        }
        for name, (part, place) in halves.items()
        if part.height
    ]
    return make_figure(traces, boxmode="group", xaxis=make_axis(""), yaxis=make_axis("score"))
