"""The part of a study's page about decisions, world by world, and the grid of worlds."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from simulations.report.html import Chart, chart, details, plain, scrolled
from simulations.report.plots import Figure, axis, figure
from simulations.report.tables import UNKNOWN, number, with_interval
from simulations.results.derived_columns import RETUNING_J, SCORE
from simulations.results.device_means import HEADLINES, mean_by, mean_known, split_arms
from simulations.studies.decision_measures import LABEL, score_auc
from simulations.studies.forecast_resampling import COHORTS, WIDEST, resampled_releases
from simulations.studies.study_figures import COLOURS
from simulations.studies.worlds_grid import grid_cells

Arms = Mapping[str, pl.DataFrame]


Cells = tuple[list[str], list[list[str]]]


NOTE = (
    "Decisions of devices that had a patch; the first tune is left out. A retune would have helped "
    "where it gains more than {margin:g} nats per token on the days to come, with the arm's own "
    "old patch against the retuned one: a label of the observer's; no device and no server sees "
    "it. Where a release comes every night, a retune also sees the newest exchanges: part of its "
    "gain is newer data and not the release. What a function-preserving release shows is that part "
    "alone. Joules of deciding and retuning are simulated, above idle."
)


def deciding_arms(arms: Arms) -> list[str]:
    """Returns the arms that decide anything, in order."""
    return [name for name, rows in arms.items() if rows["decided"].sum()]


def releases_of(arms: Arms) -> list[str]:
    """Returns the names of the releases that were decided about, in their order."""
    every = pl.concat([rows.filter(pl.col("decided") == 1) for rows in arms.values()])
    order = every.group_by("release_name").agg(pl.col("release").min()).sort("release")
    return order["release_name"].to_list()


def decision_cells(arms: Arms) -> Cells:
    """Retunes of all decisions by arm and release, with retunes and simulated joules per device."""
    releases = releases_of(arms)
    rows: list[list[str]] = []
    for name in deciding_arms(arms):
        part = arms[name].filter(pl.col("decided") == 1)
        devices = arms[name]["device"].n_unique()
        shares = [_share(part.filter(pl.col("release_name") == one)) for one in releases]
        joules = float(part[RETUNING_J].sum()) / devices
        retunes = float(part["retuned"].sum()) / devices
        rows.append([name, *shares, number(retunes, ".2f"), number(joules, ",.0f")])
    return ["arm", *releases, "retunes per device", "J deciding and retuning"], rows


def _share(part: pl.DataFrame) -> str:
    return f"{int(part['retuned'].sum())} of {part.height}" if part.height else UNKNOWN


def score_cells(arms: Arms, margin: float) -> Cells:
    """How well an arm's score tells whom a retune helps, over all decisions and by release."""
    releases = releases_of(arms)
    columns = ["arm", "a retune helps", "ROC-AUC [95 %]", "within releases [95 %]", *releases]
    rows: list[list[str]] = []
    for name in deciding_arms(arms):
        part = arms[name].filter((pl.col("decided") == 1) & pl.col(LABEL).is_not_null())
        if not part.height:
            continue
        helped = int((part[LABEL] > margin).sum())
        by_release = [
            score_auc(part.filter(pl.col("release_name") == one), margin, within=True)["mean"]
            for one in releases
        ]
        rows.append(
            [
                name,
                f"{helped} of {part.height}",
                with_interval(score_auc(part, margin, within=False)),
                with_interval(score_auc(part, margin, within=True)),
                *(number(one) for one in by_release),
            ]
        )
    return columns, rows


def mix_saving(
    arm: pl.DataFrame, reference: pl.DataFrame, mild: Sequence[str], share: float
) -> float | None:
    """Returns the saving of deciding and retuning on a schedule of another mix; None if unknown.

    Joules per decision on mild releases, and on the others, are taken as they were: what a patch
    went through before in another schedule is left out.

    Args:
        arm: Rows of the arm.
        reference: Rows of the arm that always retunes.
        mild: Names of the mild releases.
        share: Share of them in the schedule.
    """
    spent = [_per_decision(rows, mild) for rows in (arm, reference)]
    mixed = [share * of_mild + (1 - share) * other for of_mild, other in spent]
    return 1 - mixed[0] / mixed[1] if mixed[1] else None


def _per_decision(rows: pl.DataFrame, mild: Sequence[str]) -> tuple[float, float]:
    part = rows.filter(pl.col("decided") == 1)
    is_mild = part["release_name"].is_in(list(mild))
    halves = [part.filter(is_mild), part.filter(~is_mild)]
    found = [float(one[RETUNING_J].sum()) / one.height if one.height else 0.0 for one in halves]
    return found[0], found[1]


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
        rows: Its rows with the columns of `simulations.results.derived_columns`.
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
