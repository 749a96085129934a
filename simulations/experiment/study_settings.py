"""Holds what a study puts to the test, in which worlds, and how each claim is judged.

A claim compares two arms, paired by device, over all seeds of a world. Devices of different seeds
are different people; a device of one world is the same person in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SINGLE_MEASURES = (
    "score_auc",
    "score_auc_within",
    "retune_rate",
    "gain_share_within",
    "gain_above_release",
)
"""Measures of one arm alone."""
COLUMN_MEASURES = (
    "difference",
    "saving",
    "equal_quality_cost",
    "above_line",
    "retained",
    "levels",
    "words",
)
MEASURES = ("quality_difference", "energy_saving", *COLUMN_MEASURES, *SINGLE_MEASURES)
STRATA = ("light", "middle", "heavy")
"""Thirds of the devices by how many exchanges their users wrote, the fewest first."""
DIRECTIONS = ("above", "below", "at_most", "not_above", "within")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence that a study puts to the test.

    Attributes:
        claim: Its name.
        measure: What is estimated (`simulations.studies.judge`):

            - ``quality_difference``, ``energy_saving``: the headline metric of `arm` minus that of
              `against`; the share of the joules of `against` that `arm` saves;
            - ``difference``, ``saving``: the same of a column, of its mean and of its sum;
            - ``equal_quality_cost``: 1 minus the ratio of what each needs of a column to come to
              the mean quality of `against`;
            - ``above_line``: quality above the line through `against_rungs` and `against` over a
              column's sum;
            - ``retained``: share of what `against` gains in a column over the arm in
              `against_rungs` that `arm` keeps;
            - ``score_auc``, ``score_auc_within``: ROC-AUC of what `arm` decides by, against what a
              retune gains, over all decisions and within releases;
            - ``retune_rate``: share of the decisions of `arm` that are retunes;
            - ``gain_share_within``: share of the variance of what a retune gains that lies between
              devices of one release; ``gain_above_release``: what deciding per device gains over
              the best decision per release at as many retunes, nats per decision;
            - ``levels``: how far apart graded styles of the offered catalogue stay in order, the
              axis as its column; ``words``: share of its entries whose strongest word is right.
        arm: The arm that it is about.
        against: The arm that it is compared with; empty for `SINGLE_MEASURES`.
        threshold: The value to reach.
        direction: ``above``: the interval's lower end must exceed the threshold; ``below``: the
            upper end must stay under it; ``at_most``: the upper end must not exceed it;
            ``not_above``: the lower end must not exceed it; ``within``: the whole interval must lie
            within plus or minus it.
        column: A column of rows.parquet, for the measures of a column.
        world: The world of `arm`; empty for the first one.
        against_world: The world of `against`; empty for that of `arm`.
        rungs: For ``equal_quality_cost``, the arms below `arm`, that do the same with less.
        against_rungs: The arms below `against`, or on the same line.
        releases: Only nights on which a device held a release of these names; none: all.
        less_releases: For ``retained``, releases whose share is taken off.
        stratum: Only the devices of this third by how much their users wrote, one of `STRATA`;
            empty: all. For measures that compare two arms.
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
    less_releases: tuple[str, ...] = ()
    stratum: str = ""
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
        if self.stratum and (self.stratum not in STRATA or self.measure in SINGLE_MEASURES):
            raise ValueError(
                f"claim {self.claim}: stratum must be one of {STRATA}, with a measure that "
                f"compares two arms, got {self.stratum!r} with {self.measure}"
            )
        if self.less_releases and self.measure != "retained":
            raise ValueError(
                f"claim {self.claim}: less_releases goes with retained, got {self.measure}"
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
        grid: Whether every claim is judged in every world as well.
        note: What a reader of the page should know beforehand.
    """

    name: str
    seeds: tuple[int, ...] = ()
    claims: tuple[Claim, ...] = ()
    worlds: tuple[World, ...] = ()
    world: str = ""
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One chart: a column against a number that worlds differ in.

    Attributes:
        title: Its title.
        x: What the number is.
        column: What is shown, as a mean per device.
        arms: Whose.
        points: The number by world.
        equal_quality: Whether instead the column at which an arm's family comes to the quality of
            the last arm is shown.
    """

    title: str
    x: str
    column: str
    arms: tuple[str, ...]
    points: Mapping[str, float]
    equal_quality: bool = False
