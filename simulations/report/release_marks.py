"""Releases and decisions in figures: their names and colours, and an axis of rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulations.report.plots import SOFT, Figure, make_axis
from simulations.results.device_means import DECISIONS

_DECISION_PALETTE = "#44BB99 #EE8866 #DDDDDD #EEDD88 #882255"
DECISION_COLOURS = dict(zip(DECISIONS, _DECISION_PALETTE.split(), strict=True))
_TICKS = 10


def make_round_axis(rounds: int, **extra: object) -> Figure:
    """Returns an axis of a run's rounds with ticks at whole numbers, about ten at most."""
    return make_axis("round (simulated night)", tick0=0, dtick=-(-rounds // _TICKS), **extra)


def label_release(version: int, name: str | None) -> str:
    """Returns the short name of a release on an axis: its version and how severe it is."""
    return f"r{version} {name or ''}".strip()


def mark_release(round_: int) -> Figure:
    """Returns a dotted line at the round of a release, over the whole height of a figure."""
    ends = {"x0": round_, "x1": round_, "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", **ends, "line": {"color": "#9aa5b1", "width": 1, "dash": "dot"}}


def name_release(release: Mapping[str, Any]) -> Figure:
    """Returns the name of a release above its line, from its row of ``releases.parquet``."""
    place = {"x": release["round"], "y": 1.01, "yref": "paper"}
    place |= {"xanchor": "left", "yanchor": "bottom", "textangle": -45}
    look = {"showarrow": False, "font": {"size": 11, "color": SOFT}}
    return {"text": label_release(release["version"], release["name"])} | place | look
