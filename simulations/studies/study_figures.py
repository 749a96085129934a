"""The chart of a study's page: what tuning costs in every arm of a world, and what it buys."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from simulations.report.plots import Figure, axis, figure, spread
from simulations.report.tables import METRICS
from simulations.studies.study_tables import ArmFold

COLOURS = (
    *("#555555", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#44AA99", "#AA4499"),
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
"""Families beyond the colours take the next symbol."""

Families = Mapping[str, Sequence[str]]


def grouped(arms: Sequence[str], families: Families) -> dict[str, list[str]]:
    """Returns the arms that exist by family; an arm of none makes one of its own."""
    found = {
        family: [arm for arm in members if arm in arms] for family, members in families.items()
    }
    taken = {arm for members in found.values() for arm in members}
    found |= {arm: [arm] for arm in arms if arm not in taken}
    return {family: members for family, members in found.items() if members}


def pareto(folds: Mapping[str, ArmFold], families: Families, metric: str) -> Figure:
    """Quality over simulated joules of tuning: a point per arm, a line along each family.

    An arm without quality has no point. A family's line follows the order in which the study names
    its arms.
    """
    traces: list[Figure] = []
    for place, (family, members) in enumerate(grouped(list(folds), families).items()):
        colour = COLOURS[place % len(COLOURS)]
        known = [arm for arm in members if _is_known(folds[arm])]
        if known:
            traces.append(_line(family, known, folds, colour, SYMBOLS[place // len(COLOURS) % 4]))
    return figure(
        traces,
        height=620,
        xaxis=axis(
            "simulated J of probing and tuning, mean per device",
            rangemode="tozero",
            exponentformat="SI",
        ),
        yaxis=axis(f"{METRICS[metric]}<br>(higher is better)"),
        legend={"orientation": "h", "yanchor": "top", "y": -0.14, "x": 0},
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
    )


def _is_known(fold: ArmFold) -> bool:
    return fold.quality["mean"] is not None and fold.tuning_j[0] is not None


def _line(
    family: str, arms: Sequence[str], folds: Mapping[str, ArmFold], colour: str, symbol: str
) -> Figure:
    quality = [folds[arm].quality for arm in arms]
    joules = [folds[arm].tuning_j for arm in arms]
    look: Figure = {"color": colour, "size": 10, "symbol": symbol}
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(arms) > 1 else "markers",
        "name": html.escape(family),
        "x": [one[0] for one in joules],
        "y": [one["mean"] for one in quality],
        "text": [html.escape(arm) for arm in arms],
        "hovertemplate": "%{text}: %{y:.3f} for %{x:.4s}J<extra></extra>",
        "error_x": spread([(one[0], one[1], one[2]) for one in joules], colour),
        "error_y": spread([(one["mean"], *one["ci95"]) for one in quality], colour),
        "line": {"color": colour, "width": 1.5, "dash": "dot"},
        "marker": look | {"line": {"color": "white", "width": 1}},
        "cliponaxis": False,
    }
