"""The tables of a study's page about decisions: by release, scores, and the schedule's mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from simulations.report.tables import UNKNOWN, number, with_interval
from simulations.results.decided import RETUNING_J
from simulations.studies.decision_measures import LABEL, score_auc

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
