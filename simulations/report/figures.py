"""The figures of the report as plain data in Plotly's JSON schema: one function per figure.

An arm keeps one colour in all figures, from the palette of Okabe and Ito (2008); stages and
decisions use those of Paul Tol; all can be told apart by colour-blind readers. Distributions over
devices are drawn from their quantiles, so a page stays small however many devices a run has.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from simulations.report.plots import INK as _INK
from simulations.report.plots import SOFT as _SOFT
from simulations.report.plots import Figure
from simulations.report.plots import axis as _axis
from simulations.report.plots import bars as _bars
from simulations.report.plots import figure as _figure
from simulations.report.tables import METRICS, arm_order, quality_metric, reference_arm
from simulations.results.device_means import (
    DECISIONS,
    HEADLINES,
    STAGES,
    fold_devices,
    mean_by,
    paired,
)

REFERENCE_COLOUR = "#555555"
ARM_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STAGE_PALETTE = "#DDDDDD #88CCEE #44AA99 #999933 #AA4499 #DDCC77 #CC6677 #6699CC #117733 #8c2d04"
_DECISION_PALETTE = "#44BB99 #EE8866 #DDDDDD #EEDD88 #882255"
STAGE_COLOURS = dict(zip(STAGES, _STAGE_PALETTE.split(), strict=True))
DECISION_COLOURS = dict(zip(DECISIONS, _DECISION_PALETTE.split(), strict=True))


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """Colour of each arm, given the arms in the order they are shown, the reference first."""
    others = [ARM_COLOURS[index % len(ARM_COLOURS)] for index in range(len(arms) - 1)]
    return dict(zip(arms, [REFERENCE_COLOUR, *others], strict=True))


def release_label(version: int, name: str | None) -> str:
    """Short name of a release on an axis: its version and how severe it is."""
    return f"r{version} {name or ''}".strip()


def quality_against_energy(summary: Mapping[str, Any]) -> Figure:
    """One point per arm: quality with its interval over joules with the coefficients' range."""
    traces: list[Figure] = []
    for arm, colour in arm_colours(arm_order(summary)).items():
        quality, joules = summary["arms"][arm]["quality"], summary["arms"][arm]["energy_j"]
        if quality["mean"] is not None and joules["total"] is not None:
            low, high = quality["ci95"]
            point: Figure = {
                "type": "scatter",
                "mode": "markers",
                "name": html.escape(arm),
                "x": [joules["total"]],
                "y": [quality["mean"]],
                "error_x": _bars(joules["total"], joules["low"], joules["high"], colour),
                "error_y": _bars(quality["mean"], low, high, colour),
                "marker": {"color": colour, "size": 13, "line": {"color": "white", "width": 1}},
                "cliponaxis": False,
            }
            traces.append(point)
    return _figure(
        traces,
        xaxis=_axis("simulated J, whole fleet", rangemode="tozero", exponentformat="SI"),
        yaxis=_axis(_quality_title(summary)),
    )


def quality_over_rounds(
    rows: Mapping[str, pl.DataFrame], releases: pl.DataFrame, summary: Mapping[str, Any]
) -> Figure:
    """Mean headline quality over the devices evaluated in each round, releases marked."""
    column, sign = HEADLINES[quality_metric(summary)]
    traces: list[Figure] = []
    for arm, colour in arm_colours(arm_order(summary)).items():
        rounds, means = mean_by(rows[arm].drop_nulls(column), "round", column)
        if len(rounds):
            line = {
                "type": "scatter",
                "mode": "lines+markers",
                "name": html.escape(arm),
                "x": rounds.tolist(),
                "y": (sign * means).tolist(),
                "line": {"color": colour, "width": 2},
                "marker": {"size": 5},
            }
            traces.append(line)
    marks = releases.unique("version").sort("round", "version").to_dicts()
    return _figure(
        traces,
        xaxis=_axis("round (simulated night)", tickformat="d"),
        yaxis=_axis(_quality_title(summary)),
        shapes=[_release_line(mark["round"]) for mark in marks],
        annotations=[_release_note(mark) for mark in marks],
        margin={"l": 70, "r": 20, "t": 90, "b": 60},
        legend={"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0},
    )


def energy_by_stage(summary: Mapping[str, Any]) -> Figure:
    """Stacked joules per arm by stage, with the range that the coefficients allow."""
    arms = arm_order(summary)
    names = [html.escape(arm) for arm in arms]
    joules = [summary["arms"][arm]["energy_j"] for arm in arms]
    stages = [
        {
            "type": "bar",
            "orientation": "h",
            "name": stage,
            "y": names,
            "x": [one["by_stage"][stage] for one in joules],
            "marker": {"color": colour, "line": {"color": "white", "width": 0.5}},
        }
        for stage, colour in STAGE_COLOURS.items()
    ]
    ranges = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "total, with range",
            "showlegend": place == 0,
            "legendgroup": "total",
            "y": [name],
            "x": [one["total"]],
            "marker": {"color": _INK, "size": 6},
            "error_x": _bars(one["total"], one["low"], one["high"], _INK),
        }
        for place, (name, one) in enumerate(zip(names, joules, strict=True))
    ]
    return _figure(
        [*stages, *ranges],
        height=190 + 54 * len(arms),
        xaxis=_axis("simulated J, whole fleet", rangemode="tozero", exponentformat="SI"),
        yaxis=_axis("", autorange="reversed", showgrid=False),
        barmode="stack",
        bargap=0.35,
    )


def decisions_per_release(
    rows: Mapping[str, pl.DataFrame], releases: pl.DataFrame, summary: Mapping[str, Any]
) -> Figure:
    """Shares of the deciding devices by decision, for each release held; one panel per arm."""
    arms = arm_order(summary)
    columns = 2 if len(arms) == 4 else min(3, len(arms))
    names = {one["version"]: one["name"] for one in releases.iter_rows(named=True)}
    traces: list[Figure] = []
    axes: dict[str, Figure] = {}
    for place, arm in enumerate(arms):
        suffix = str(place + 1) if place else ""
        axes[f"xaxis{suffix}"] = _axis("", type="category", showgrid=False)
        title = "devices that decided, %" if place % columns == 0 else ""
        axes[f"yaxis{suffix}"] = _axis(title, range=[0, 100])
        shares = _decision_shares(rows[arm])
        for decision, colour in DECISION_COLOURS.items() if shares.height else ():
            bars = {
                "type": "bar",
                "name": decision,
                "legendgroup": decision,
                "showlegend": len(traces) < len(DECISIONS),
                "x": [html.escape(release_label(one, names.get(one))) for one in shares["release"]],
                "y": shares[decision].to_list(),
                "marker": {"color": colour},
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
            }
            traces.append(bars)
    lines = -(-len(arms) // columns)
    grid = {"rows": lines, "columns": columns, "pattern": "independent"}
    return _figure(
        traces,
        height=150 + 260 * lines,
        grid=grid | {"xgap": 0.14, "ygap": 0.35},
        annotations=[_panel_title(place, arm) for place, arm in enumerate(arms)],
        barmode="stack",
        bargap=0.25,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.06 + 0.04 / lines, "x": 0},
        margin={"l": 70, "r": 20, "t": 90, "b": 60},
        **axes,
    )


def savings_per_device(rows: Mapping[str, pl.DataFrame], summary: Mapping[str, Any]) -> Figure:
    """Each device's saving against the reference as a box of its 5, 25, 50, 75, 95 % quantiles."""
    metric, reference = quality_metric(summary), reference_arm(summary)
    base = fold_devices(rows[reference], metric)
    traces: list[Figure] = []
    for arm, colour in arm_colours(arm_order(summary)).items():
        here, there = paired(fold_devices(rows[arm], metric), base)
        known = (there.energy_j > 0) & np.isfinite(here.energy_j)
        if arm != reference and known.any():
            savings = 100 * (1 - here.energy_j[known] / there.energy_j[known])
            marks = np.quantile(savings, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
            box = dict(zip(("lowerfence", "q1", "median", "q3", "upperfence"), marks, strict=True))
            traces.append(
                {"type": "box", "orientation": "h", "name": html.escape(arm), "showlegend": False}
                | {"y": [html.escape(arm)], "line": {"color": colour}}
                | {key: [value] for key, value in box.items()}
            )
    title = f"saving of simulated J vs {html.escape(reference)}, % per device"
    return _figure(
        traces,
        height=130 + 54 * len(traces) if traces else 220,
        xaxis=_axis(title, rangemode="tozero", zeroline=True, zerolinecolor=_INK, zerolinewidth=1),
        yaxis=_axis("", autorange="reversed", showgrid=False),
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
    )


def _decision_shares(rows: pl.DataFrame) -> pl.DataFrame:
    decided = rows.filter(pl.col("decision").is_in(DECISIONS))
    shares = [(pl.col("decision") == name).mean().mul(100).alias(name) for name in DECISIONS]
    return decided.group_by("release").agg(shares).sort("release")


def _quality_title(summary: Mapping[str, Any]) -> str:
    return f"{METRICS[quality_metric(summary)]}<br>(higher is better)"


def _release_line(round_: int) -> Figure:
    line = {"color": "#9aa5b1", "width": 1, "dash": "dot"}
    return {
        "type": "line",
        "x0": round_,
        "x1": round_,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": line,
    }


def _release_note(release: Mapping[str, Any]) -> Figure:
    return {
        "text": html.escape(release_label(release["version"], release["name"])),
        "x": release["round"],
        "y": 1.01,
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "textangle": -45,
        "showarrow": False,
        "font": {"size": 11, "color": _SOFT},
    }


def _panel_title(place: int, arm: str) -> Figure:
    suffix = str(place + 1) if place else ""
    return {
        "text": f"<b>{html.escape(arm)}</b>",
        "x": 0.5,
        "y": 1.02,
        "xref": f"x{suffix} domain",
        "yref": f"y{suffix} domain",
        "yanchor": "bottom",
        "showarrow": False,
    }
