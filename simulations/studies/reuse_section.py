"""The part of a study's page about decisions, world by world, and the grid of worlds."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from simulations.report.html import Chart, chart, details, plain, scrolled
from simulations.results.device_means import split_arms
from simulations.studies.decision_measures import LABEL
from simulations.studies.forecast_resampling import COHORTS, WIDEST, resampled_releases
from simulations.studies.reuse_figures import chord, has_decisions, mixes, scores
from simulations.studies.reuse_tables import NOTE, decision_cells, score_cells
from simulations.studies.worlds_grid import grid_cells

_CHORD = (
    "Above the dashed line: better than a fleet of which a random share of devices retunes always "
    "and the others never."
)
_MIX = (
    "The share of the joules of deciding and retuning that an arm saves, if a schedule had so many "
    "mild releases ({mild}) among its others. Joules per decision are those seen here; what a "
    "patch went through before in such a schedule is left out."
)
_GRID = "Every claim in every world in which its arms ran, by the same thresholds."


def decisions_section(
    world: str, rows: pl.DataFrame, metric: str, mild: Sequence[str], margin: float
) -> str:
    """Returns the section of a world; empty where no decision has a label.

    Args:
        world: Its name, part of the charts' keys.
        rows: Its rows with the columns of `simulations.results.decided`.
        metric: The headline metric.
        mild: Names of the mild releases; none: no chart of mixes.
        margin: Nats per token that a retune has to gain to count as help.
    """
    arms = split_arms(rows)
    if not has_decisions(arms):
        return ""
    labelled = [name for name, part in arms.items() if part[LABEL].is_not_null().any()]
    charts = [
        Chart(key=f"chord-{world}", title="The chord", caption=_CHORD, figure=chord(arms, metric))
    ]
    if mild and "always_retune" in arms:
        text = _MIX.format(mild=", ".join(mild))
        drawn = mixes(arms, "always_retune", mild)
        charts.append(
            Chart(
                key=f"mix-{world}", title="Saving by the schedule's mix", caption=text, figure=drawn
            )
        )
    charts += [
        Chart(
            key=f"scores-{world}-{name}",
            title=f"Scores of {name}",
            caption="By release, apart for decisions that a retune helps and that it does not.",
            figure=scores(arms[name], margin),
        )
        for name in labelled
        if name == "edgetune"
    ]
    return "\n".join(
        [
            "<h3>Reuse or retune</h3>",
            f'<p class="note">{html.escape(NOTE.format(margin=margin))}</p>',
            scrolled(plain(*decision_cells(arms))),
            scrolled(plain(*score_cells(arms, margin))),
            *(chart(one) for one in charts),
            _forecasts(arms),
        ]
    )


def _forecasts(arms: Mapping[str, pl.DataFrame]) -> str:
    """Returns the table of resampled first cohorts of ours; empty where the fleet is too small."""
    every = resampled_releases(arms["edgetune"]) if "edgetune" in arms else []
    rows = [
        [
            one.name,
            f"{100 * one.first.retune_rate:.0f} %",
            *(
                f"{100 * found.covered:.0f} % +-{100 * found.mean_half_width:.1f} points, "
                f"{study.sampled:.0f} devices"
                for study in (one.first, one.grown)
                for found in [study.quantities["retune_rate"]]
            ),
            f"{100 * one.grown.quantities['energy_j'].covered:.0f} %",
        ]
        for one in every
    ]
    if not rows:
        return ""
    columns = ["release", "retuned", "covered, first cohort", "covered, grown", "joules, grown"]
    note = (
        f"{COHORTS} first cohorts of edgetune's devices, drawn again from all seeds together; "
        f"grown: until the half-width is at most {100 * WIDEST:.0f} points."
    )
    return details("Forecasts from first cohorts", f"<p>{note}</p>{scrolled(plain(columns, rows))}")


def grid_section(grid: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of claims by world; empty without one."""
    if not grid:
        return ""
    note = f'<p class="note">{html.escape(_GRID)}</p>'
    return f"<h2>Over worlds</h2>{note}{scrolled(plain(*grid_cells(grid)))}"
