"""The figures of a run's report, one function each.

An arm keeps one colour in all figures. Decisions have colours of a palette of Paul Tol's.
Distributions over devices are drawn from their quantiles, so a page stays small however many
devices a run has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from simulations.experiment.headlines import HEADLINES
from simulations.report.device_life import draw_device_life
from simulations.report.plots import (
    COLOURS,
    INK,
    REFERENCE_COLOUR,
    Figure,
    draw_bars,
    make_axis,
    make_curve,
    make_figure,
)
from simulations.report.release_marks import (
    DECISION_COLOURS,
    label_release,
    make_round_axis,
    mark_release,
    name_release,
)
from simulations.report.summary_tables import get_metric, get_reference, order_arms
from simulations.report.waterfall import draw_waterfall
from simulations.results.device_means import (
    DECISIONS,
    average_by,
    pair_devices,
    reduce_by_device,
)

_HIDDEN_LINE = {"color": "white", "width": 1}

Arms = Mapping[str, pl.DataFrame]
"""The rows of every arm, as `simulations.results.device_means.split_arms` gives them."""


def draw_figures(
    rows: Arms, releases: pl.DataFrame, summary: Mapping[str, Any]
) -> dict[str, Figure]:
    """Returns the figures of a run's page by the key under which ``run.html`` shows them."""
    return {
        "waterfall": draw_waterfall(summary),
        "quality-against-energy": draw_quality_against_energy(summary),
        "quality-over-rounds": draw_quality_over_rounds(rows, releases, summary),
        "decisions-per-release": draw_decisions_per_release(rows, releases, summary),
        "savings-per-device": draw_savings_per_device(rows, summary),
        "device-life": draw_device_life(rows, releases, summary),
    }


def colour_arms(arms: Sequence[str]) -> dict[str, str]:
    """Returns the colour of each arm, given the arms as they are shown, the reference first."""
    others = [COLOURS[index % len(COLOURS)] for index in range(len(arms) - 1)]
    return dict(zip(arms, [REFERENCE_COLOUR, *others], strict=True))


def draw_quality_against_energy(summary: Mapping[str, Any]) -> Figure:
    """Draws a point per arm: quality with its interval over joules with their range."""
    traces: list[Figure] = []
    for arm, colour in colour_arms(order_arms(summary)).items():
        quality, joules = summary["arms"][arm]["quality"], summary["arms"][arm]["energy_j"]
        if quality["mean"] is None or joules["total"] is None:
            continue
        low, high = quality["ci95"]
        point = make_curve(
            arm,
            [joules["total"]],
            [quality["mean"]],
            mode="markers",
            error_x=draw_bars(joules["total"], joules["low"], joules["high"], colour),
            error_y=draw_bars(quality["mean"], low, high, colour),
            marker={"color": colour, "size": 13, "line": _HIDDEN_LINE},
            cliponaxis=False,
        )
        traces.append(point)
    return make_figure(traces, xaxis=_joules_axis(), yaxis=_quality_axis(summary))


def draw_quality_over_rounds(
    rows: Arms, releases: pl.DataFrame, summary: Mapping[str, Any]
) -> Figure:
    """Draws mean headline quality over the devices evaluated in each round, releases marked."""
    head = HEADLINES[get_metric(summary)]
    traces: list[Figure] = []
    for arm, colour in colour_arms(order_arms(summary)).items():
        rounds, means = average_by(rows[arm].drop_nulls(head.column), "round", head.column)
        if len(rounds):
            look = {"line": {"color": colour, "width": 2}, "marker": {"size": 5}}
            quality = (head.sign * means).tolist()
            traces.append(make_curve(arm, rounds.tolist(), quality, mode="lines+markers", **look))
    marks = releases.unique("version").sort("round", "version").to_dicts()
    legend = {"orientation": "h", "yanchor": "top", "x": 0}
    return make_figure(
        traces,
        xaxis=make_round_axis(summary["run"]["rounds"]),
        yaxis=_quality_axis(summary),
        shapes=[mark_release(mark["round"]) for mark in marks],
        annotations=[name_release(mark) for mark in marks],
        margin={"l": 70, "r": 20, "t": 90, "b": 60},
        legend=legend | {"y": -0.22},
        meta={"narrow": {"legend": legend | {"y": -0.4}}},
    )


def draw_decisions_per_release(
    rows: Arms, releases: pl.DataFrame, summary: Mapping[str, Any]
) -> Figure:
    """Draws the deciding devices' shares by decision, for each release held; a panel per arm.

    Arms that always decide alike have no panel, unless all do.
    """
    every = order_arms(summary)
    arms = [arm for arm in every if _pick_decided(rows[arm])["decision"].n_unique() > 1] or every
    columns = 2 if len(arms) == 4 else min(3, len(arms))
    lines = -(-len(arms) // columns)
    names = {one["version"]: one["name"] for one in releases.iter_rows(named=True)}
    traces: list[Figure] = []
    axes: dict[str, Figure] = {}
    titles: list[Figure] = []
    for place, arm in enumerate(arms):
        panel = str(place + 1) if place else ""
        title = "devices that decided, %" if place % columns == 0 else ""
        axes[f"xaxis{panel}"] = make_axis("", type="category", showgrid=False)
        axes[f"yaxis{panel}"] = make_axis(title, range=[0, 100])
        titles.append(_title_panel(panel, arm))
        shares = _share_decisions(rows[arm])
        held = [label_release(one, names.get(one)) for one in shares["release"]]
        for decision, colour in DECISION_COLOURS.items() if shares.height else ():
            bars = {"type": "bar", "name": decision, "legendgroup": decision}
            bars |= {"x": held, "y": shares[decision].to_list(), "marker": {"color": colour}}
            bars |= {"xaxis": f"x{panel}", "yaxis": f"y{panel}"}
            traces.append(bars | {"showlegend": len(traces) < len(DECISIONS)})
    grid = {"rows": lines, "columns": columns, "pattern": "independent"}
    # a narrow page has one panel in a line
    tall = {"rows": len(arms), "columns": 1, "ygap": 0.35 if len(arms) > 1 else 0}
    narrow = {"grid": grid | tall, "height": 150 + 230 * len(arms)}
    return make_figure(
        traces,
        height=150 + 260 * lines,
        grid=grid | {"xgap": 0.14, "ygap": 0.35},
        meta={"narrow": narrow},
        annotations=titles,
        barmode="stack",
        bargap=0.25,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.06 + 0.04 / lines, "x": 0},
        margin={"l": 70, "r": 20, "t": 90, "b": 60},
        **axes,
    )


def draw_savings_per_device(rows: Arms, summary: Mapping[str, Any]) -> Figure:
    """Draws the devices' savings against the reference: a box from 5 to 95 % for each arm."""
    metric, reference = get_metric(summary), get_reference(summary)
    base = reduce_by_device(rows[reference], metric)
    traces: list[Figure] = []
    for arm, colour in colour_arms(order_arms(summary)).items():
        here, there = pair_devices(reduce_by_device(rows[arm], metric), base)
        known = (there.energy_j > 0) & np.isfinite(here.energy_j)
        if arm != reference and known.any():
            savings = 100 * (1 - here.energy_j[known] / there.energy_j[known])
            marks = np.quantile(savings, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
            box = dict(zip(("lowerfence", "q1", "median", "q3", "upperfence"), marks, strict=True))
            traces.append(
                {"type": "box", "orientation": "h", "name": arm, "showlegend": False}
                | {"y": [arm], "line": {"color": colour}}
                | {key: [value] for key, value in box.items()}
            )
    title = f"simulated J saved, % per device\n(against {reference})"
    look: Figure = {"rangemode": "tozero", "zeroline": True}
    look |= {"zerolinecolor": INK, "zerolinewidth": 1}
    return make_figure(
        traces,
        height=130 + 54 * len(traces) if traces else 220,
        xaxis=make_axis(title, **look),
        yaxis=make_axis("", autorange="reversed", showgrid=False),
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
    )


def _share_decisions(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the share of every decision, in percent, by release."""
    shares = [(pl.col("decision") == name).mean().mul(100).alias(name) for name in DECISIONS]
    return _pick_decided(rows).group_by("release").agg(shares).sort("release")


def _pick_decided(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("decision").is_in(DECISIONS))


def _quality_axis(summary: Mapping[str, Any]) -> Figure:
    head = HEADLINES[get_metric(summary)]
    look = {"tickformat": ".0%"} if head.is_share else {}
    return make_axis(f"{head.words}\n(higher is better)", **look)


def _joules_axis() -> Figure:
    return make_axis("simulated J, whole fleet", rangemode="tozero", exponentformat="SI")


def _title_panel(panel: str, arm: str) -> Figure:
    place = {"x": 0.5, "y": 1.02, "xref": f"x{panel} domain", "yref": f"y{panel} domain"}
    look = {"yanchor": "bottom", "showarrow": False}
    return {"text": Markup("<b>{}</b>").format(arm)} | place | look
