"""Catalogue map: entries where their words place them, in the plane in which they differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulations.report.plots import Figure, make_axis, make_figure

_WORDS = 6
"""Words that are drawn: those along which entries differ most."""


def draw_catalogue_map(entries: Sequence[Mapping[str, Any]]) -> Figure:
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
                "text": ["", entries[0]["words"][place]],
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
            "text": [entry["strongest"] for entry in entries],
            "hovertext": [f"{e['entry']}: {e['reads']}" for e in entries],
            "hoverinfo": "text",
            "textposition": "bottom center",
            "marker": {"color": "#0072B2", "size": 8},
            "showlegend": False,
        }
    )
    return make_figure(
        traces,
        height=520,
        xaxis=make_axis("first direction"),
        yaxis=make_axis("second direction"),
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
    )
