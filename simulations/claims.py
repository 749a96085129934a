"""Claims: what a study puts to the test, in which worlds, and how each is judged.

A claim compares two arms, paired by device, over all seeds of a world. Devices of different seeds
are different people; a device of one world is the same person in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import polars as pl

from simulations.folds import compared, compared_column, fold_devices, split_arms
from simulations.levels import ordered
from simulations.reach import reach_saving
from simulations.study_decisions import above_line, retained, retune_rate, score_auc
from simulations.study_forecast import forecast_coverage, forecast_half_width
from simulations.sweeps import Sweep
from simulations.wording import strongest_right

SINGLE_MEASURES = (
    *("score_auc", "score_auc_within", "retune_rate"),
    *("forecast_coverage", "forecast_half_width"),
)
"""Measures of one arm alone."""
COLUMN_MEASURES = ("difference", "saving", "reach", "above_line", "retained", "levels", "words")
MEASURES = ("quality_difference", "energy_saving", *COLUMN_MEASURES, *SINGLE_MEASURES)
DIRECTIONS = ("above", "below", "not_above", "within")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence that a study puts to the test.

    Attributes:
        claim: Its name.
        measure: ``quality_difference`` or ``energy_saving`` of `arm` against `against`;
            ``difference`` of a column's mean per device; ``saving``: 1 minus the ratio of a
            column's sums; ``reach``: 1 minus the ratio of what each needs of a column to reach the
            mean quality of `against` (`simulations.reach`); ``above_line``: quality above the line
            through `against_rungs` and `against` over a column's sum; ``retained``: share of what
            `against` gains in a column over the arm in `against_rungs` that `arm` keeps;
            ``score_auc`` and ``score_auc_within``: of what `arm` decides by, against what a retune
            gains, over all decisions and within releases; ``retune_rate`` of its decisions
            (`simulations.study_decisions`); ``forecast_coverage`` and ``forecast_half_width`` of
            first cohorts (`simulations.study_forecast`); ``levels``: how far apart graded styles
            of the offered catalogue stay in order (`simulations.levels`), the axis as its column;
            ``words``: share of its entries whose strongest word is right (`simulations.wording`).
        arm: The arm that it is about.
        against: The arm that it is compared with; empty for `SINGLE_MEASURES`.
        threshold: The value to reach.
        direction: ``above``: the interval's lower end must exceed the threshold; ``below``: the
            upper end must stay under it; ``not_above``: the lower end must not exceed it;
            ``within``: the whole interval must lie within plus or minus it.
        column: A column of rows.parquet, for the measures of a column.
        world: The world of `arm`; empty for the first one.
        against_world: The world of `against`; empty for that of `arm`.
        rungs: For ``reach``, the arms below `arm`, that do the same with less.
        against_rungs: The arms below `against`, or on the same line.
        releases: Only nights on which a device held a release of these names; none: all.
        margin: Nats per token that a retune has to gain to count as help, for ``score_auc``.
    """

    claim: str
    measure: str
    arm: str
    threshold: float
    direction: str
    against: str = ""
    column: str = ""
    world: str = ""
    against_world: str = ""
    rungs: tuple[str, ...] = ()
    against_rungs: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    margin: float = 0.05

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ValueError(f"a claim's measure must be one of {MEASURES}, got {self.measure!r}")
        if self.direction not in DIRECTIONS:
            raise ValueError(
                f"a claim's direction must be one of {DIRECTIONS}, got {self.direction!r}"
            )
        if (self.measure in COLUMN_MEASURES) != bool(self.column):
            raise ValueError(
                f"claim {self.claim}: column must be given for {COLUMN_MEASURES} and only for "
                f"them, got {self.column!r} with {self.measure}"
            )
        if (self.measure in SINGLE_MEASURES) == bool(self.against):
            raise ValueError(
                f"claim {self.claim}: against must be given unless the measure is one of "
                f"{SINGLE_MEASURES}, got {self.against!r} with {self.measure}"
            )
        if self.measure == "retained" and len(self.against_rungs) != 1:
            raise ValueError(
                f"claim {self.claim}: retained needs the arm without personalisation as its only "
                f"against_rungs, got {self.against_rungs}"
            )

    @property
    def ladder(self) -> tuple[str, ...]:
        """The arm with its rungs, from the lowest."""
        return (*self.rungs, self.arm)

    @property
    def against_ladder(self) -> tuple[str, ...]:
        """The other arm with its rungs, from the lowest."""
        return (*self.against_rungs, self.against) if self.against else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One of the worlds in which a study runs.

    Attributes:
        name: What claims call it.
        overrides: What it changes in the configuration, as on a command line.
    """

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """Worlds, seeds and claims of a study.

    Attributes:
        name: Its name; ``none`` for a plain run.
        seeds: Seeds to run; none for a plain run.
        claims: What is put to the test, over all seeds together.
        worlds: Where it runs; none: once, as configured.
        world: The world that this part of the study is of; set by the launcher.
        sweeps: Curves over worlds, for the page.
        families: Arms that do the same with more and more of something, by a name for them; the
            page joins them by a line.
        mild: Names of the releases that count as mild, for savings by the schedule's mix.
        grid: Whether every claim is judged in every world as well.
        note: What a reader of the page should know beforehand.
    """

    name: str
    seeds: tuple[int, ...] = ()
    claims: tuple[Claim, ...] = ()
    worlds: tuple[World, ...] = ()
    world: str = ""
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    mild: tuple[str, ...] = ()
    grid: bool = False
    note: str = ""
    sweeps: tuple[Sweep, ...] = ()

    def __post_init__(self) -> None:
        names = [world.name for world in self.worlds]
        if len(set(names)) < len(names):
            raise ValueError(f"study.worlds must have different names, got {names}")
        for sweep in self.sweeps:
            if strange := sorted(set(sweep.points) - set(names)):
                raise ValueError(f"sweep {sweep.title!r} is about world {strange[0]!r}; {names}")
        for claim in self.claims:
            for world in (claim.world, claim.against_world):
                if world and world not in names:
                    raise ValueError(
                        f"claim {claim.claim} is about world {world!r}; known are {names}"
                    )

    @property
    def world_names(self) -> tuple[str, ...]:
        """The worlds by name; one without a name where none is given."""
        return tuple(world.name for world in self.worlds) or ("",)

    def check_arms(self, arms: Sequence[str]) -> None:
        """Raises ValueError if a claim about this part's world names an arm that will not run."""
        first = self.worlds[0].name if self.worlds else ""
        for claim in self.claims:
            world = claim.world or first
            for place, named in (
                (world, claim.ladder),
                (claim.against_world or world, claim.against_ladder),
            ):
                missing = [arm for arm in named if arm not in arms]
                if place == self.world and missing:
                    raise ValueError(
                        f"claim {claim.claim} is about arm {missing[0]!r}, which does not run; "
                        f"arms are {', '.join(arms)}"
                    )


def judge(
    worlds: Mapping[str, pl.DataFrame],
    claims: Sequence[Claim],
    metric: str,
    catalogues: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Returns every claim with its estimate, 95 % interval, threshold and whether it holds.

    Args:
        worlds: The rows of every world, the first one first.
        claims: What to judge.
        metric: The headline metric.
        catalogues: What was offered to start from, by world (`strategies.cataloguing`).

    Raises:
        ValueError: If a claim is about an arm without rows.
    """
    arms = {name: split_arms(rows) for name, rows in worlds.items()}
    first = next(iter(worlds))
    offered = [catalogues.get(claim.world or first, ()) for claim in claims]
    return [_judged(*claim, arms, metric) for claim in zip(claims, offered, strict=True)]


Arms = Mapping[str, pl.DataFrame]


def _judged(
    claim: Claim, offered: Sequence[Mapping[str, Any]], worlds: Mapping[str, Arms], metric: str
) -> dict[str, Any]:
    here = worlds[claim.world or next(iter(worlds))]
    there = worlds[claim.against_world] if claim.against_world else here
    for arms, ladder in ((here, claim.ladder), (there, claim.against_ladder)):
        missing = [name for name in ladder if name not in arms]
        if missing:
            raise ValueError(f"claim {claim.claim} is about arm {missing[0]!r}, which did not run")
    here, there = (_of_releases(arms, claim.releases) for arms in (here, there))
    if claim.measure == "words":
        found = strongest_right(offered)
    elif claim.measure == "levels":
        found = ordered(offered, claim.column)
    else:
        found = _measured(claim, here, there, metric)
    low, high = found["ci95"]
    return {
        "claim": claim.claim,
        "estimate": found["mean"],
        "ci95": [low, high],
        "threshold": claim.threshold,
        "direction": claim.direction,
        "holds": _holds(claim, low, high),
    }


def _of_releases(arms: Arms, releases: Sequence[str]) -> Arms:
    if not releases:
        return arms
    return {
        name: rows.filter(pl.col("release_name").is_in(releases)) for name, rows in arms.items()
    }


def _measured(claim: Claim, here: Arms, there: Arms, metric: str) -> dict[str, Any]:
    if claim.measure in SINGLE_MEASURES:
        return _alone(claim, here[claim.arm])
    if claim.measure == "above_line":
        line = [there[name] for name in claim.against_ladder]
        return above_line(here[claim.arm], line, claim.column, metric)
    if claim.measure == "retained":
        none, full = (there[name] for name in claim.against_ladder)
        return retained(here[claim.arm], none, full, claim.column)
    if claim.measure == "reach":
        ladder = [here[name] for name in claim.ladder]
        against = [there[name] for name in claim.against_ladder]
        return reach_saving(ladder, against, claim.column, metric)
    if claim.column:
        both = here[claim.arm], there[claim.against]
        return compared_column(*both, claim.column, seed=0)[claim.measure]
    both = fold_devices(here[claim.arm], metric), fold_devices(there[claim.against], metric)
    return compared(*both, seed=0)[claim.measure]


def _alone(claim: Claim, rows: pl.DataFrame) -> dict[str, Any]:
    if claim.measure == "retune_rate":
        return retune_rate(rows)
    if claim.measure == "forecast_coverage":
        return forecast_coverage(rows)
    if claim.measure == "forecast_half_width":
        return forecast_half_width(rows)
    return score_auc(rows, claim.margin, within=claim.measure == "score_auc_within")


def _holds(claim: Claim, low: float | None, high: float | None) -> bool:
    """Returns whether an interval is where the claim says; an unknown end never is."""
    if low is None or high is None:
        known = low if claim.direction in ("above", "not_above") else high
        if known is None or claim.direction == "within":
            return False
    low, high = (float("nan") if end is None else end for end in (low, high))
    return {
        "above": low > claim.threshold,
        "below": high < claim.threshold,
        "not_above": low <= claim.threshold,
        "within": -claim.threshold <= low and high <= claim.threshold,
    }[claim.direction]
