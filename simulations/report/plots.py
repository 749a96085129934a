"""Plots: the look that all figures share, in Plotly's JSON schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Figure = dict[str, Any]
"""A Plotly figure: {"data": [trace, ...], "layout": {...}}."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, SOFT, GRID = "#1f2933", "#616e7c", "#e4e7eb"


def bars(value: float | None, low: float | None, high: float | None, colour: str) -> Figure:
    """Returns error bars from low to high around a value; none where one of them is unknown."""
    if value is None or low is None or high is None:
        return {"visible": False}
    sides = {"array": [high - value], "arrayminus": [value - low], "symmetric": False}
    return {"type": "data", **sides, "color": colour, "thickness": 1.4, "width": 4}


def spread(points: Sequence[tuple[float | None, ...]], colour: str) -> Figure:
    """Returns error bars of points (value, low, high); of no length where an end is unknown."""
    made = [bars(value, low, high, colour) for value, low, high in points]
    if not any("array" in one for one in made):
        return {"visible": False}
    sides = {
        side: [one[side][0] if side in one else 0.0 for one in made]
        for side in ("array", "arrayminus")
    }
    look = {"color": colour, "thickness": 1.2, "width": 3}
    return {"type": "data", "symmetric": False} | look | sides


def axis(title: str, **extra: object) -> Figure:
    """Returns an axis with a title."""
    look = {"gridcolor": GRID, "linecolor": "#9aa5b1", "zeroline": False, "automargin": True}
    return {"title": {"text": title, "standoff": 12}, "showline": True, **look, **extra}


def figure(traces: list[Figure], **layout: object) -> Figure:
    """Returns a figure of the house look; one that says so where there is nothing to draw."""
    note = {"text": "nothing to show for this run", "xref": "paper", "yref": "paper"}
    look = {
        "height": 420,
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
        "font": {"family": FONT, "size": 13, "color": INK},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        "hovermode": "closest",
    }
    empty = {"annotations": [note | {"x": 0.5, "y": 0.5, "showarrow": False}]}
    return {"data": traces, "layout": look | layout | ({} if traces else empty)}
