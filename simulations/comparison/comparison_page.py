"""Files of a comparison: its page, and its table in four forms for other programs and papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleettune.whole_files import write_whole
from simulations.comparison.comparison_tables import (
    describe_columns,
    describe_correction,
    frame_comparison,
    list_common,
    order_lines,
    tabulate_comparison,
    tabulate_references,
    tabulate_runs,
)
from simulations.comparison.fold import Line
from simulations.comparison.found_runs import FoundRun
from simulations.comparison.front import RunComparison, get_joules, get_quality, is_ranked
from simulations.comparison.sentences import (
    conclude_comparison,
    describe_front,
    find_changed_conclusions,
    get_headline,
    list_notes,
)
from simulations.report.page import write_page
from simulations.report.plots import (
    COLOURS,
    SOFT,
    Figure,
    draw_bars,
    make_axis,
    make_curve,
    make_figure,
)
from simulations.report.summary_tables import describe_pricing
from simulations.report.text_tables import format_latex, format_markdown


def write_comparison(
    folder: Path,
    comparison: RunComparison,
    runs: Sequence[FoundRun],
    answers: Sequence[str],
    limits: tuple[float | None, float | None],
) -> list[Path]:
    """Writes ``compare`` as .csv, .parquet, .md, .tex and .html into a folder; returns the paths.

    Args:
        folder: Is made where it is missing.
        comparison: What is written.
        runs: The runs that it is of.
        answers: What was asked of a budget and a target, answered in sentences.
        limits: That budget in joules and that target, None where not asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"compare.{kind}" for kind in ("csv", "parquet", "md", "tex", "html")]
    table, parquet, markdown, latex, page = paths
    frame, rows = frame_comparison(comparison), tabulate_comparison(comparison)
    frame.write_csv(table)
    frame.write_parquet(parquet)
    told = [conclude_comparison(comparison), *answers]
    more = [*describe_front(comparison), *list_notes(comparison)]
    columns = f"{describe_columns(comparison)} {describe_correction(comparison)}".strip()
    lines = ["# Comparison", "", *told, "", *format_markdown(rows), "", columns, "", *more, ""]
    write_whole(markdown, "\n".join(lines).encode())
    write_whole(latex, ("\n".join(format_latex(rows)) + "\n").encode())
    first = runs[0]
    changed = find_changed_conclusions(comparison.lines)
    values: dict[str, object] = {
        "title": "Settings compared",
        "run": first.summary["run"],
        "priced_as": describe_pricing(first.summary),
        "seeds": sorted({run.seed for run in runs}),
        "common": " ".join(list_common(runs)),
        "runs": tabulate_runs(runs),
        "limited": any(limit is not None for limit in limits),
        "settings": len(comparison.lines),
        "answer": told[0],
        "answers": answers,
        "notes": more,
        "rows": rows,
        "columns": columns,
        "colours": colour_lines(order_lines(comparison)),
        "front": draw_front(comparison, *limits),
        "references": tabulate_references(comparison),
        "changed": changed,
        "obstacle": comparison.obstacle,
    }
    write_page("compare.html", page, values)
    return paths


def colour_lines(lines: Sequence[Line]) -> dict[str, str]:
    """Returns the colour of each line by its name."""
    return {line.name: COLOURS[place % len(COLOURS)] for place, line in enumerate(lines)}


def draw_front(
    comparison: RunComparison, budget_j: float | None = None, target: float | None = None
) -> Figure:
    """Draws quality over simulated joules, a point per line, with a dotted line along the front.

    A line that another one dominates is hollow. A budget and a target are dashed.
    """
    order = order_lines(comparison)
    colours = colour_lines(order)
    front = comparison.front
    along = make_curve(
        "front",
        [get_joules(line) for line in front],
        [get_quality(line) for line in front],
        line={"color": SOFT, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    traces = [along] if len(front) > 1 else []
    for line in order:
        if is_ranked(line):
            is_beaten = comparison.dominated.get(line.name) is not None
            traces.append(_draw_line(line, colours[line.name], is_beaten=is_beaten))
    head = get_headline(order[0])
    look = {"tickformat": ".2~%"} if head.is_share else {}
    marks = [("x", budget_j), ("y", target)]
    return make_figure(
        traces,
        height=460 + 20 * (len(traces) // 3),
        xaxis=make_axis("simulated J, whole fleet", rangemode="tozero", exponentformat="SI"),
        yaxis=make_axis(f"{head.words}\n(higher is better)", **look),
        shapes=[_mark_limit(axis, value) for axis, value in marks if value is not None],
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
    )


def _draw_line(line: Line, colour: str, *, is_beaten: bool) -> Figure:
    joules, quality = get_joules(line), get_quality(line)
    _, least, greatest = line.energy_j
    low, high = line.quality["ci95"]
    return make_curve(
        line.name.replace(" ", "\n"),  # a legend breaks no line by itself
        [joules],
        [quality],
        mode="markers",
        error_x=draw_bars(joules, least, greatest, colour),
        error_y=draw_bars(quality, low, high, colour),
        marker={
            "color": colour,
            "size": 12,
            "symbol": "circle-open" if is_beaten else "circle",
            "line": {"color": colour if is_beaten else "white", "width": 2 if is_beaten else 1},
        },
        cliponaxis=False,
    )


def _mark_limit(axis: str, value: float) -> Figure:
    other = {"x": "y", "y": "x"}[axis]
    ends = {f"{axis}0": value, f"{axis}1": value, f"{other}0": 0, f"{other}1": 1}
    look = {"line": {"color": SOFT, "width": 1.5, "dash": "dash"}}
    return {"type": "line", **ends, f"{other}ref": "paper"} | look
