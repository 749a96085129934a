"""Catalogue map: entries where their words place them, in the plane in which they differ most."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulations.report.html import Chart, chart, plain, scrolled
from simulations.report.plots import Figure, axis, figure
from simulations.report.start_tables import CATALOGUE_NOTE, catalogue_cells

_WORDS = 6
"""Words that are drawn: those along which entries differ most."""


def map_section(entries: Sequence[Mapping[str, Any]]) -> str:
    """Returns the map of a first catalogue and its entries in words; empty without one."""
    if not entries:
        return ""
    shown = Chart(
        key="catalogue-map",
        title="The catalogue in words",
        caption="Every entry by its coordinates along words, in the two principal directions of "
        "the entries; lines show where a word points. Hover for the whole explanation.",
        figure=map_figure([e for e in entries if e["release"] == entries[0]["release"]]),
    )
    table = scrolled(plain(*catalogue_cells(entries)))
    return chart(shown) + f'<p class="note">{html.escape(CATALOGUE_NOTE)}</p>' + table


def map_figure(entries: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns entries as points with their strongest word, and words as lines from the middle."""
    places = np.array([entry["coordinates"] for entry in entries], dtype=np.float64)
    away = places - places.mean(axis=0)
    _, _, directions = np.linalg.svd(away, full_matrices=False)
    plane = np.zeros((2, away.shape[1]))
    plane[: len(directions[:2])] = directions[:2]
    points = away @ plane.T
    reach = float(np.abs(points).max()) or 1.0
    traces: list[Figure] = []
    for place in np.argsort(-np.linalg.norm(plane.T, axis=1), kind="stable")[:_WORDS].tolist():
        tip = plane[:, place] * reach
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+text",
                "x": [0.0, float(tip[0])],
                "y": [0.0, float(tip[1])],
                "text": ["", html.escape(entries[0]["words"][place])],
                "textposition": "top center",
                "line": {"color": "#999999", "width": 1},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": points[:, 0].tolist(),
            "y": points[:, 1].tolist(),
            "text": [html.escape(entry["strongest"]) for entry in entries],
            "hovertext": [html.escape(f"{e['entry']}: {e['reads']}") for e in entries],
            "hoverinfo": "text",
            "textposition": "bottom center",
            "marker": {"color": "#0072B2", "size": 8},
            "showlegend": False,
        }
    )
    return figure(
        traces,
        height=520,
        xaxis=axis("first direction"),
        yaxis=axis("second direction"),
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
    )
