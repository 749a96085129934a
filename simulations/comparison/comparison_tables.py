"""The tables of a comparison: for the terminal, for its page, and every number as a data frame."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from rich.table import Table

from simulations.comparison.contrasts import LEVEL, RESAMPLES, count_comparisons
from simulations.comparison.fold import Estimate, Line
from simulations.comparison.found_runs import FoundRun
from simulations.comparison.front import RunComparison, get_joules
from simulations.comparison.sentences import (
    describe_place,
    describe_shown,
    format_quality,
    get_headline,
)
from simulations.report.formats import (
    format_change,
    format_kilojoules,
    format_number,
    format_share,
    format_share_interval,
    mark_estimates,
)
from simulations.report.page import Row
from simulations.report.summary_tables import describe_pricing
from simulations.report.terminal_tables import WIDE, make_table

_NAME_WIDTH = 24
"""Characters of a setting's name from which on it is broken in a narrow terminal."""


def order_lines(comparison: RunComparison) -> list[Line]:
    """Returns the lines as they are shown: by energy, as they came where they do not compare."""
    lines = list(comparison.lines)
    return lines if comparison.obstacle else sorted(lines, key=get_joules)


def tabulate_comparison(comparison: RunComparison) -> list[Row]:
    """Returns a row per line with quality, energy and how it compares with the best one.

    Where settings do not compare, each is shown against the reference of its own runs.
    """
    lines = order_lines(comparison)
    head = get_headline(lines[0])
    unit = "points" if head.is_share else "change"
    rows: list[Row] = []
    for line in lines:
        joules = mark_estimates(format_kilojoules(*line.energy_j), line.tiers)
        saving, change = _versus(line, comparison)
        rows.append(
            {
                "setting": line.name,
                "seeds": f"{len(line.runs)}",
                f"{head.words} [95 %]": format_quality(line),
                "worst seed": _format_quality(line.worst_quality, is_share=head.is_share),
                "simulated kJ (low to high)": joules,
                "energy saved [95 %]": saving,
                f"{unit} [95 %]": change,
                "place": describe_place(line, comparison),
                "shown": describe_shown(line, comparison),
            }
        )
    return rows


def _versus(line: Line, comparison: RunComparison) -> tuple[str, str]:
    is_share = get_headline(line).is_share
    contrast = comparison.contrasts.get(line.name)
    if contrast is not None:
        change = format_change(contrast.quality_change, is_share=is_share)
        return format_share_interval(contrast.saving), change
    if line is comparison.best:
        return "the best", ""
    if line.is_reference:
        return "reference", ""
    return format_share_interval(line.saving), format_change(line.quality_change, is_share=is_share)


def _format_quality(value: float | None, *, is_share: bool) -> str:
    return format_share(value) if is_share else format_number(value)


def tabulate_references(comparison: RunComparison) -> list[Row]:
    """Returns a row per line that is no reference: how it compares with that of its own runs."""
    return [
        {
            "setting": line.name,
            "reference": line.reference,
            "energy saved [95 %]": format_share_interval(line.saving),
            "serving left out [95 %]": format_share_interval(line.saving_unserved),
            "points [95 %]" if head.is_share else "change [95 %]": format_change(
                line.quality_change, is_share=head.is_share
            ),
        }
        for line in order_lines(comparison)
        if not line.is_reference
        for head in [get_headline(line)]
    ]


def list_common(runs: Sequence[FoundRun]) -> list[str]:
    """Returns what was typed for every run alike."""
    return [
        f"{key}={value}"
        for key, value in runs[0].typed.items()
        if all(run.typed.get(key) == value for run in runs)
    ]


def tabulate_runs(runs: Sequence[FoundRun]) -> list[Row]:
    """Returns a row per run: its folder, its seed, and what was typed for it and not for all."""
    common = set(list_common(runs))
    typed = [[f"{key}={value}" for key, value in run.typed.items()] for run in runs]
    return [
        {
            "run": run.name,
            "seed": str(run.seed),
            "what was typed": " ".join(word for word in words if word not in common) or "nothing",
        }
        for run, words in zip(runs, typed, strict=True)
    ]


def describe_columns(comparison: RunComparison) -> str:
    """Returns what the numbers of the table are, as sentences."""
    runs = [run for line in comparison.lines for run in line.runs.values()]
    prices = dict.fromkeys(describe_pricing(run.summary) for run in runs)
    references = sorted({line.reference for line in comparison.lines})
    versus = f"against {' or '.join(references)} of the same runs"
    if comparison.best is not None:
        versus = f"against {comparison.best.name}, the best in quality"
    return (
        f"Simulated joules of all devices of a run, device-total ledger, "
        f"{' or '.join(prices)}, a mean over seeds; low to high is the mean of the runs' "
        "ranges from the coefficients. E: rests mostly on estimates. Energy saved and change of "
        f"quality: {versus}, paired by seed and device. 95 % intervals, in brackets, resample "
        "seeds, and devices within them."
    )


def describe_correction(comparison: RunComparison) -> str:
    """Returns by what rule something counts as shown, as sentences; empty without a comparison."""
    count = count_comparisons(list(comparison.contrasts.values()))
    if not count:
        return ""
    return (
        f"Shown: after Holm's correction for all {count} comparisons, at {100 * LEVEL:.0f} %. "
        f"P-values are from the same {RESAMPLES:,} resamples as the intervals, which are not "
        "corrected."
    )


def make_comparison_table(comparison: RunComparison, width: int = WIDE) -> Table:
    """Returns the lines of a comparison as a table of five columns for a terminal of a width."""
    rows: list[Row] = []
    for row in tabulate_comparison(comparison):
        cells = dict(list(row.items())[:6])
        seeds = cells.pop("seeds")
        name = cells["setting"]
        if width < WIDE:
            parts = name.split()
            name = "\n".join(
                part.replace("=", "=\n", 1) if len(part) > _NAME_WIDTH else part for part in parts
            )
            # brackets are explained below, where there is room
            cells = {key.removesuffix(" [95 %]"): cell for key, cell in cells.items()}
        cells["setting"] = f"{name} ({seeds} seed{'' if seeds == '1' else 's'})"
        rows.append(cells)
    return make_table(rows, describe_columns(comparison), width=width)


def frame_comparison(comparison: RunComparison) -> pl.DataFrame:
    """Returns every number of a comparison, a row per line; null where unknown.

    Qualities are in the metric's own unit, savings are shares, energies are simulated joules of a
    run.
    """
    rows = [_frame_line(line, comparison) for line in order_lines(comparison)]
    # a column in which nothing is known has its type all the same
    words = {"best": pl.String, "dominated_by": pl.String, "on_front": pl.Boolean}
    return pl.DataFrame(rows, schema_overrides=words).with_columns(pl.col(pl.Null).cast(pl.Float64))


def _frame_line(line: Line, comparison: RunComparison) -> dict[str, object]:
    contrast = comparison.contrasts.get(line.name)
    other = comparison.dominated.get(line.name)
    spent = [value for value in line.energy_by_seed.values() if value is not None]
    known = [value for value in line.quality_by_seed.values() if value is not None]
    unknown: Estimate = {"mean": None, "ci95": [None, None]}
    total, low, high = line.energy_j
    first = next(iter(line.runs.values()))
    return {
        "setting": line.name,
        "arm": line.arm,
        "reference": line.reference,
        "metric": first.summary["arms"][line.arm]["quality"]["metric"],
        "priced_as": first.summary["run"]["priced_as"],
        "seeds": ",".join(map(str, line.runs)),
        "devices": len(line.devices.devices),
        **_spread("quality", line.quality),
        "quality_worst_seed": line.worst_quality,
        "quality_best_seed": max(known, default=None),
        "energy_j": total,
        "energy_j_low": low,
        "energy_j_high": high,
        "energy_j_worst_seed": max(spent, default=None),
        **_spread("saving", line.saving),
        **_spread("saving_without_serving", line.saving_unserved),
        **_spread("quality_change", line.quality_change),
        "best": comparison.best.name if comparison.best else None,
        **_spread("saving_to_best", contrast.saving if contrast else unknown),
        **_spread("quality_change_to_best", contrast.quality_change if contrast else unknown),
        "p_saving_to_best": contrast.p_saving if contrast else None,
        "p_quality_to_best": contrast.p_quality if contrast else None,
        "holm_saving_to_best": contrast.holm_saving if contrast else None,
        "holm_quality_to_best": contrast.holm_quality if contrast else None,
        "on_front": other is None if line.name in comparison.dominated else None,
        "dominated_by": other.name if other else None,
        "wins": line is comparison.winner,
    }


def _spread(name: str, estimate: Estimate) -> dict[str, float | None]:
    low, high = estimate["ci95"]
    return {name: estimate["mean"], f"{name}_low": low, f"{name}_high": high}
