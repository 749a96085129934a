"""The look that all figures share, as plain data in Plotly's JSON schema.

Plotly reads labels as HTML. `make_figure` escapes every text of a figure, except a
`markupsafe.Markup`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from markupsafe import escape

Figure = dict[str, Any]
"""A Plotly figure: {"data": [trace, ...], "layout": {...}}; or a part of one."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, SOFT, GRID = "#1f2933", "#616e7c", "#e4e7eb"
REFERENCE_COLOUR = "#555555"
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#332288", "#44AA99"),
)
"""Seven of Okabe and Ito (2008), which colour-blind readers can tell apart, then four of Tol's."""


def draw_bars(value: float | None, low: float | None, high: float | None, colour: str) -> Figure:
    """Returns error bars from low to high around a value; none where one of them is unknown."""
    if value is None or low is None or high is None:
        return {"visible": False}
    sides = {"array": [high - value], "arrayminus": [value - low], "symmetric": False}
    return {"type": "data", **sides, "color": colour, "thickness": 1.4, "width": 4}


def draw_all_bars(points: Sequence[tuple[float | None, ...]], colour: str) -> Figure:
    """Returns error bars of points (value, low, high); of no length where an end is unknown."""
    made = [draw_bars(value, low, high, colour) for value, low, high in points]
    if not any("array" in one for one in made):
        return {"visible": False}
    sides = {
        side: [one[side][0] if side in one else 0.0 for one in made]
        for side in ("array", "arrayminus")
    }
    look = {"color": colour, "thickness": 1.2, "width": 3}
    return {"type": "data", "symmetric": False} | look | sides


def make_curve(name: str, x: Sequence[object], y: Sequence[object], **look: object) -> Figure:
    """Returns points of a name, (x, y) each; a line unless ``mode`` says otherwise."""
    return {"type": "scatter", "mode": "lines", "name": name, "x": [*x], "y": [*y], **look}


def make_axis(title: str, **extra: object) -> Figure:
    """Returns an axis with a title, which may have several lines."""
    look = {"gridcolor": GRID, "linecolor": "#9aa5b1", "zeroline": False, "automargin": True}
    return {"title": {"text": title, "standoff": 12}, "showline": True, **look, **extra}


def make_figure(traces: Sequence[Figure], **layout: object) -> Figure:
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
    own = cast(Figure, _escape(layout))
    return {"data": _escape(traces), "layout": look | own | ({} if traces else empty)}


def _escape(value: object) -> object:
    """Returns a figure's data with every text escaped and lines broken as Plotly does."""
    if isinstance(value, str):
        return str(escape(value)).replace("\n", "<br>")
    if isinstance(value, Mapping):
        return {key: _escape(one) for key, one in cast(Figure, value).items()}
    if isinstance(value, list | tuple):
        return [_escape(one) for one in cast(Sequence[object], value)]
    return value
