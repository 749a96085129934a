"""The charts of a study's page about decisions: the chord, scores by release, saving by mix."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import polars as pl

from simulations.report.plots import Figure, axis, figure
from simulations.results.decided import SCORE
from simulations.results.device_means import HEADLINES, mean_by, mean_known
from simulations.studies.decision_measures import LABEL
from simulations.studies.reuse_tables import deciding_arms, mix_saving, releases_of
from simulations.studies.study_figures import COLOURS

Arms = Mapping[str, pl.DataFrame]
SHARES = tuple(step / 20 for step in range(21))
ENDS = ("always_reuse", "always_retune")
"""Arms at the ends of the chord."""


def chord(arms: Arms, metric: str) -> Figure:
    """Quality over retunes per device, with the chord between reuse and retune always."""
    column, sign = HEADLINES[metric]
    points: dict[str, tuple[float, float]] = {}
    for name in deciding_arms(arms):
        rows = arms[name]
        quality = mean_known(sign * mean_by(rows, "device", column)[1])
        if quality is not None:
            points[name] = float(rows["retuned"].sum()) / rows["device"].n_unique(), quality
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": html.escape(name),
            "x": [x],
            "y": [y],
            "marker": {"color": COLOURS[place % len(COLOURS)], "size": 11},
            "hovertemplate": "%{x:.2f} retunes: %{y:.3f}<extra></extra>",
        }
        for place, (name, (x, y)) in enumerate(points.items())
    ]
    if all(end in points for end in ENDS):
        ends = [points[end] for end in ENDS]
        line: Figure = {"type": "scatter", "mode": "lines", "name": "chord"}
        line |= {"x": [x for x, _ in ends], "y": [y for _, y in ends]}
        traces.insert(0, line | {"line": {"color": "#9aa5b1", "dash": "dash"}})
    return figure(
        traces,
        height=480,
        xaxis=axis("retunes per device, first tune left out"),
        yaxis=axis("quality<br>(higher is better)"),
    )


def scores(rows: pl.DataFrame, margin: float) -> Figure:
    """What an arm decided by, release by release, apart for those that a retune helps."""
    known = rows.filter((pl.col("decided") == 1) & pl.col(SCORE).is_not_null())
    halves = {
        "a retune helps": (known.filter(pl.col(LABEL) > margin), COLOURS[2]),
        "it does not": (known.filter(pl.col(LABEL) <= margin), COLOURS[1]),
    }
    traces: list[Figure] = [
        {
            "type": "box",
            "name": name,
            "x": [html.escape(one) for one in part["release_name"]],
            "y": [round(value, 6) for value in part[SCORE].to_list()],
            "marker": {"color": colour, "size": 4},
        }
        for name, (part, colour) in halves.items()
        if part.height
    ]
    return figure(traces, boxmode="group", xaxis=axis(""), yaxis=axis("score"))


def mixes(arms: Arms, reference: str, mild: Sequence[str]) -> Figure:
    """Saving of deciding and retuning over the share of mild releases in a schedule."""
    traces: list[Figure] = []
    for place, name in enumerate(deciding_arms(arms)):
        found = [mix_saving(arms[name], arms[reference], mild, share) for share in SHARES]
        if name == reference or None in found:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": html.escape(name),
                "x": list(SHARES),
                "y": found,
                "line": {"color": COLOURS[place % len(COLOURS)]},
            }
        )
    return figure(
        traces,
        height=480,
        xaxis=axis("share of mild releases in the schedule", tickformat=".0%"),
        yaxis=axis(f"simulated joules of deciding and<br>retuning saved vs {reference}"),
    )


def has_decisions(arms: Arms) -> bool:
    """Whether there is anything to show: decisions with labels of the observer's."""
    wanted = ("decided", LABEL, "release_name")
    return any(
        all(name in rows.columns for name in wanted)
        and rows.filter((pl.col("decided") == 1) & pl.col(LABEL).is_not_null()).height
        for rows in arms.values()
    ) and bool(releases_of(arms))
