"""The figure with which a page opens: joules per device-night, and what arms do to quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fleettune.cost.ledger import Stage
from simulations.experiment.headlines import HEADLINES
from simulations.report.answer import WHOLE, choose_arm
from simulations.report.formats import format_change, format_joules, format_joules_range
from simulations.report.plots import INK, SOFT, Figure, make_axis, make_figure
from simulations.report.summary_tables import Summary, get_metric, get_reference, order_arms
from simulations.results.device_means import STAGES

_PALETTE = "#DDDDDD #88CCEE #44AA99 #999933 #AA4499 #DDCC77 #CC6677 #6699CC #117733 #8c2d04"
_COLOURS = dict(zip(STAGES, _PALETTE.split(), strict=True))
_TOP = (Stage.PROBE, Stage.TUNE)
"""Stages that stand on top of the others, because they are what arms differ in."""
_GAP = 0.7
_BAR = 0.42
"""Width of a bar, in distances between bars; above it stands its label."""


def draw_waterfall(summary: Summary) -> Figure:
    """Draws a bar per arm of its joules per device-night, stacked by stage.

    On top stand the reference and, in their order, the arms that tune, down to that of the answer;
    below a gap stand the others. Over each bar are its joules and its change of quality.
    """
    steps, others = split_arms_shown(summary)
    arms = [name for name in (*steps, *others) if summary["arms"][name]["energy_j"]["total"]]
    apart = sum(name in steps for name in arms)
    places = [place + (_GAP if place >= apart else 0) for place in range(len(arms))]
    nights = {name: sum(summary["arms"][name]["attendance"].values()) for name in arms}
    labels = [
        _label_bar(place, name, summary, nights[name])
        for name, place in zip(arms, places, strict=True)
    ]
    split = apart - 1 + (1 + _GAP) / 2 - _BAR / 2
    is_split = 0 < apart < len(arms)
    ends = [places[-1] + _BAR, -0.8] if places else [1, 0]
    return make_figure(
        _stack_stages(summary, arms, places, nights),
        height=150 + 54 * len(arms),
        barmode="stack",
        xaxis=make_axis("simulated J per device-night", rangemode="tozero", fixedrange=True),
        yaxis=make_axis("", range=ends, showticklabels=False, showgrid=False, fixedrange=True),
        annotations=[*labels, *([_name_others(split)] if is_split else [])],
        shapes=[_part_bars(split)] if is_split else [],
        margin={"l": 10, "r": 10, "t": 40, "b": 40},
    )


def split_arms_shown(summary: Summary) -> tuple[list[str], list[str]]:
    """Returns the arms from the reference to that of the answer, and those beside them.

    In between stand arms that tune, up to the whole system; an arm that is not the whole has no
    steps. Without an answer all that tune are steps.
    """
    names, reference, chosen = order_arms(summary), get_reference(summary), choose_arm(summary)
    between = names if chosen is None else []
    if chosen == WHOLE:
        between = names[: names.index(chosen)]
    steps = [
        name
        for name in names
        if name in (reference, chosen)
        or (name in between and summary["arms"][name]["energy_j"]["by_stage"]["tune"])
    ]
    return steps, [name for name in names if name not in steps]


def _stack_stages(
    summary: Summary,
    arms: Sequence[str],
    places: Sequence[float],
    nights: Mapping[str, int],
) -> list[Figure]:
    """Returns a trace per stage that took joules; hovering tells them and their range."""
    traces: list[Figure] = []
    for stage in sorted(STAGES, key=lambda stage: stage in _TOP):
        parts = [summary["arms"][name]["energy_j"] for name in arms]
        joules = [part["by_stage"][stage] or 0.0 for part in parts]
        if not any(joules):
            continue
        known = zip(arms, joules, parts, strict=True)
        ranges = [
            format_joules_range(
                *(
                    None if value is None else value / nights[name]
                    for value in (total, *part["by_stage_range"][stage])
                )
            )
            for name, total, part in known
        ]
        lengths = [total / nights[name] for name, total in zip(arms, joules, strict=True)]
        traces.append(
            {"type": "bar", "orientation": "h", "name": stage, "y": [*places], "x": lengths}
            | {
                "width": _BAR,
                "marker": {"color": _COLOURS[stage], "line": {"color": "white", "width": 0.5}},
            }
            | {"customdata": ranges, "hovertemplate": "%{fullData.name}: %{customdata}"}
        )
    return traces


def _describe_quality(name: str, summary: Summary) -> tuple[str, str]:
    """Returns the change of quality and its bounds, "" where there are none."""
    if name == get_reference(summary):
        return "reference", ""
    is_share = HEADLINES[get_metric(summary)].is_share
    change = summary["arms"][name]["vs_reference"]["quality_difference"]
    value, bracket, bounds = format_change(change, is_share=is_share).partition(" [")
    unit = " points" if is_share and change["mean"] is not None else ""
    return value + unit, f"{bracket.strip()}{bounds}"


def _label_bar(place: float, name: str, summary: Summary, nights: int) -> Figure:
    """Returns the line above a bar: the arm, its joules per device-night, its quality."""
    is_told = name in (get_reference(summary), choose_arm(summary))
    joules = format_joules(summary["arms"][name]["energy_j"]["total"] / nights)
    change, bounds = _describe_quality(name, summary)
    text = Markup("{} {}, {} <span style='color:{}'>{}</span>").format(
        Markup("<b>{}</b>" if is_told else "{}").format(name), joules, change, SOFT, bounds
    )
    at: dict[str, Any] = {"x": 0, "y": place - _BAR / 2, "xanchor": "left", "yanchor": "bottom"}
    look = {"showarrow": False, "borderpad": 1, "font": {"size": 12, "color": INK}}
    return {"text": text, **at, **look}


def _name_others(split: float) -> Figure:
    at = {"x": 1, "xref": "paper", "y": split, "xanchor": "right", "yanchor": "top"}
    return {"text": "for comparison", "showarrow": False, "font": {"size": 12, "color": SOFT}} | at


def _part_bars(split: float) -> Figure:
    ends = {"y0": split, "y1": split, "x0": 0, "x1": 1, "xref": "paper"}
    return {"type": "line", **ends, "line": {"color": "#9aa5b1", "width": 1, "dash": "dot"}}
