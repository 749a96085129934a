"""One device's life, night by night: releases, decisions, joules, steps of tuning and quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from simulations.experiment.headlines import HEADLINES
from simulations.report.answer import choose_arm
from simulations.report.plots import (
    COLOURS,
    REFERENCE_COLOUR,
    SOFT,
    Figure,
    make_axis,
    make_curve,
    make_figure,
)
from simulations.report.release_marks import (
    DECISION_COLOURS,
    make_round_axis,
    mark_release,
    name_release,
)
from simulations.report.summary_tables import get_metric, get_reference

_NOTHING = "nothing to decide"
_AWAY = ("absent", "starved", "interrupted", "late")
"""Attendance of a night that gave the server nothing."""


def choose_device(rows: pl.DataFrame) -> int:
    """Returns the device whose joules are the median of an arm's, the lower of two middle ones."""
    joules = rows.group_by("device").agg(pl.col("energy_j").sum()).sort("energy_j", "device")
    return int(joules["device"][(joules.height - 1) // 2])


def draw_device_life(
    rows: Mapping[str, pl.DataFrame], releases: pl.DataFrame, summary: Mapping[str, Any]
) -> Figure:
    """Draws the nights of one device of the answer's arm: quality above, joules below.

    The device is that of `choose_device`. Bars have the colour of the night's decision; hovering
    tells its reason and the steps of a tune. Crosses are nights without a reply. Without an answer
    the arm is the reference.

    Args:
        rows: The rows of every arm, by round.
        releases: ``releases.parquet``.
        summary: ``summary.json``.
    """
    reference = get_reference(summary)
    arm = choose_arm(summary) or reference
    device = choose_device(rows[arm])
    head = HEADLINES[get_metric(summary)]
    traces: list[Figure] = []
    for name, colour, dash in ((reference, REFERENCE_COLOUR, "dot"), (arm, COLOURS[0], "solid")):
        known = rows[name].filter(pl.col("device") == device).drop_nulls(head.column)
        if known.height and name not in (one["name"] for one in traces):
            quality = (head.sign * known[head.column]).to_list()
            look = {"line": {"color": colour, "width": 2, "dash": dash}, "marker": {"size": 6}}
            nights = known["round"].to_list()
            traces.append(make_curve(name, nights, quality, mode="lines+markers", **look))
    nights = rows[arm].filter(pl.col("device") == device)
    marks = releases.unique("version").sort("round", "version").to_dicts()
    quality_look = {"tickformat": ".0%", "range": [-0.05, 1.05]} if head.is_share else {}
    legend = {"orientation": "h", "yanchor": "top", "x": 0}
    return make_figure(
        [*traces, *_draw_decisions(nights), *_draw_absences(nights)],
        height=480,
        barmode="stack",
        title={"text": f"device {device} of {arm}", "font": {"size": 14}, "x": 0, "xref": "paper"},
        xaxis=make_round_axis(summary["run"]["rounds"], anchor="y2"),
        yaxis=make_axis("quality", domain=[0.45, 1], **quality_look),
        yaxis2=make_axis("simulated J", domain=[0, 0.38], rangemode="tozero", exponentformat="SI"),
        shapes=[mark_release(mark["round"]) for mark in marks],
        annotations=[name_release(mark) for mark in marks],
        margin={"l": 70, "r": 20, "t": 110, "b": 60},
        legend=legend | {"y": -0.18},
        meta={"narrow": {"legend": legend | {"y": -0.32}, "height": 560}},
    )


def _draw_decisions(nights: pl.DataFrame) -> list[Figure]:
    """Returns bars of joules, a trace per decision that the device came to."""
    traces: list[Figure] = []
    for decision, colour in (DECISION_COLOURS | {_NOTHING: "#9aa5b1"}).items():
        is_one = pl.col("decision") == decision
        if decision == _NOTHING:
            is_one = ~pl.col("decision").is_in([*DECISION_COLOURS])
        part = nights.filter(is_one)
        told = [
            f"{reason or decision}, {steps} steps"
            for reason, steps in part.select("reason", "tune_steps").iter_rows()
        ]
        bars = {"type": "bar", "name": decision, "x": part["round"].to_list(), "yaxis": "y2"}
        bars |= {"y": part["energy_j"].to_list(), "text": told, "textposition": "none"}
        if part.height:
            traces.append(bars | {"marker": {"color": colour}, "hoverinfo": "text+y"})
    return traces


def _draw_absences(nights: pl.DataFrame) -> list[Figure]:
    """Returns crosses on the nights without a reply; none where there is no such night."""
    away = nights.filter(pl.col("attendance").is_in(_AWAY))
    if away.is_empty():
        return []
    look = {"mode": "markers", "yaxis": "y2", "text": away["attendance"].to_list()}
    look |= {"marker": {"symbol": "x", "size": 9, "color": SOFT}, "hoverinfo": "text"}
    return [make_curve("no reply", away["round"].to_list(), [0.0] * away.height, **look)]
