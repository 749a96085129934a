"""The report's section on what the server learnt of decisions: counts, guidance, forecasts."""

from __future__ import annotations

import html
from pathlib import Path

import polars as pl

from simulations.report.html import details, plain, scrolled
from simulations.report.sections import Cells
from simulations.report.tables import UNKNOWN, energy, number

_NOTES = {
    "decisions": "What the server counted, from reports alone; a first tune counts as a retune. "
    "Gain: of retunes, on canaries, nats per token. Joules of retunes are simulated, above idle.",
    "guidance": "What came with a release, and how its score did on the retunes of that very "
    "release, weighted by one over their propensity. Until one was fitted, the prior is.",
    "forecast": "From a first cohort's reports, with 95 % intervals; the outcome where everybody "
    "got the release. Joules are simulated.",
}


def learned_section(run_dir: Path) -> str:
    """Returns the tables of a run's learned files; empty where there is none.

    Args:
        run_dir: A finished run.
    """
    made = {"decisions": decision_cells, "guidance": guidance_cells, "forecast": forecast_cells}
    shown: list[str] = []
    for name, cells in made.items():
        file = run_dir / f"{name}.parquet"
        if not file.is_file():
            continue
        columns, rows = cells(pl.read_parquet(file))
        if rows:
            note = f'<p class="note">{html.escape(_NOTES[name])}</p>'
            shown.append(f"<h3>{name.capitalize()}</h3>{note}{scrolled(plain(columns, rows))}")
    return details("What the server learnt of decisions", "\n".join(shown)) if shown else ""


def decision_cells(table: pl.DataFrame) -> Cells:
    """Reuses and retunes by arm and release, over all device classes."""
    columns = ["arm", "release", "devices", "reused", "retuned", "explored", "retune rate"]
    columns += ["joules per retune", "median gain (5 % to 95 %)"]
    rows = [
        [
            one["arm"],
            str(one["release"]),
            *(f"{one[name]:,}" for name in ("devices", "reused", "retuned", "explored")),
            UNKNOWN if one["retune_rate"] is None else f"{100 * one['retune_rate']:.1f} %",
            energy(one["joules_per_retune"]),
            _spread(one["gain_q50"], one["gain_q05"], one["gain_q95"]),
        ]
        for one in table.filter(pl.col("device_class") == "all").iter_rows(named=True)
    ]
    return columns, rows


def guidance_cells(table: pl.DataFrame) -> Cells:
    """What came with every release of the arms of which a gain is known."""
    columns = ["arm", "release", "fitted from", "explored", "log odds: 1", "log_drift", "canary"]
    columns += ["threshold", "for everybody", "judged by", "ROC-AUC", "false reuse", "false retune"]
    told = table.filter((pl.col("devices") > 0) | (pl.col("judged_devices") > 0))
    rows = [
        [
            one["arm"],
            str(one["release"]),
            f"{one['devices']:,}" if one["fitted"] else "too few",
            f"{one['explored']:,}",
            *(number(one[name], ".3g") for name in ("intercept", "log_drift", "canary")),
            number(one["threshold"], ".2f"),
            one["decision"] or one["decision_reason"],
            number(one["judged_devices"], "d"),
            *(number(one[name], ".2f") for name in ("auc", "false_reuse", "false_retune")),
        ]
        for one in told.iter_rows(named=True)
    ]
    return columns, rows


def forecast_cells(table: pl.DataFrame) -> Cells:
    """Forecast beside outcome, by arm, release, night and quantity."""
    columns = ["arm", "release", "night", "then", "sampled", "quantity", "forecast [95 %]"]
    columns += ["outcome", "covered"]
    rows = [
        [
            one["arm"],
            str(one["release"]),
            str(one["round"]),
            one["action"],
            f"{one['sampled']:,} of {one['devices']:,}",
            one["quantity"],
            f"{number(one['value'], '.4g')} [{number(one['low'], '.4g')}, "
            f"{number(one['high'], '.4g')}]",
            number(one["outcome"], ".4g"),
            UNKNOWN if one["covered"] is None else ("yes" if one["covered"] else "no"),
        ]
        for one in table.iter_rows(named=True)
    ]
    return columns, rows


def _spread(middle: float | None, low: float | None, high: float | None) -> str:
    if middle is None:
        return UNKNOWN
    return f"{number(middle)} ({number(low)} to {number(high)})"
