"""The figure with which a page opens: joules per device-night, and what arms do to quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
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
_HEADROOM = 1.3
_NAME_WIDTH = 12
"""Letters of an arm's name on a line, at an underscore where there is one."""


def draw_waterfall(summary: Summary) -> Figure:
    """Draws a bar per arm of its joules per device-night, stacked by stage.

    On the left stand the reference and, in their order, the arms that tune, up to that of the
    answer; behind a gap stand the others. Over each bar are its joules and its change of quality.
    """
    steps, others = split_arms_shown(summary)
    arms = [name for name in (*steps, *others) if summary["arms"][name]["energy_j"]["total"]]
    apart = sum(name in steps for name in arms)
    places = [place + (_GAP if place >= apart else 0) for place in range(len(arms))]
    nights = {name: sum(summary["arms"][name]["attendance"].values()) for name in arms}
    tops = [summary["arms"][name]["energy_j"]["total"] / nights[name] for name in arms]
    labels = [
        _label_bar(place, top, _describe_quality(name, summary))
        for name, place, top in zip(arms, places, tops, strict=True)
    ]
    told = {get_reference(summary), choose_arm(summary)}
    names = [_break_name(name, is_bold=name in told) for name in arms]
    ticks = {"tickvals": places, "ticktext": names}
    look = {"showgrid": False, "tickangle": 0, "ticks": "", "tickfont": {"size": 12}}
    width = {"range": [-0.6, places[-1] + 0.6] if places else [0, 1], "fixedrange": True}
    height = {"range": [0, _HEADROOM * max(tops, default=1)], "fixedrange": True}
    split = apart - 0.5 + _GAP / 2
    is_split = 0 < apart < len(arms)
    return make_figure(
        _stack_stages(summary, arms, places, nights),
        height=400,
        barmode="stack",
        xaxis=make_axis("", **ticks, **look, **width),
        yaxis=make_axis("simulated J per device-night", showgrid=False, **height),
        annotations=[*labels, *([_name_others(split)] if is_split else [])],
        shapes=[_part_bars(split)] if is_split else [],
        margin={"l": 60, "r": 10, "t": 40, "b": 20},
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
        heights = [total / nights[name] for name, total in zip(arms, joules, strict=True)]
        traces.append(
            {"type": "bar", "name": stage, "x": [*places], "y": heights, "width": 0.72}
            | {"marker": {"color": _COLOURS[stage], "line": {"color": "white", "width": 0.5}}}
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


def _label_bar(place: float, top: float, quality: tuple[str, str]) -> Figure:
    text = Markup("<b>{}</b><br>{}<br><span style='color:{}'>{}</span>").format(
        format_joules(top), quality[0], SOFT, quality[1]
    )
    at: dict[str, Any] = {"x": place, "y": top, "yanchor": "bottom", "showarrow": False}
    return {"text": text, "font": {"size": 11, "color": INK}, **at}


def _name_others(split: float) -> Figure:
    at = {"x": split, "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "top", "xshift": 6}
    return {"text": "for comparison", "showarrow": False, "font": {"size": 12, "color": SOFT}} | at


def _part_bars(split: float) -> Figure:
    ends = {"x0": split, "x1": split, "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", **ends, "line": {"color": "#9aa5b1", "width": 1, "dash": "dot"}}


def _break_name(name: str, *, is_bold: bool) -> str:
    lines = wrap(name.replace("_", "_ "), _NAME_WIDTH)
    text = "\n".join(line.replace("_ ", "_") for line in lines)
    return Markup("<b>{}</b>").format(text) if is_bold else text
