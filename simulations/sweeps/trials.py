"""Makes a run of every trial of a search, and reads quality and joules from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from simulations.experiment.build import Experiment
from simulations.launch import launch
from simulations.sweeps.kept_runs import KeptRun, check_run, list_missing_steps
from simulations.sweeps.search import Score
from simulations.sweeps.search_space import Space, format_point, list_corners

ROUNDS = "rounds="


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTrials:
    """An `Objective` that runs each trial in a folder of its number.

    Attributes:
        folder: Folder of the search.
        shared: Overrides of all runs.
        arm: The arm that is searched; None for the only one beside the reference.
        first_rounds: Rounds of a short run; None if there are none.
        console: Where trials are told of.
    """

    folder: Path
    shared: tuple[str, ...]
    arm: str | None
    first_rounds: int | None
    console: Console

    def run_of(self, number: int, values: Mapping[str, object], *, is_short: bool) -> KeptRun:
        """Returns the run of a trial, the short one or the whole one."""
        overrides = (*self.shared, *format_point(values))
        if not is_short:
            return KeptRun(folder=self.folder / str(number), overrides=overrides)
        others = (one for one in overrides if not one.startswith(ROUNDS))
        return KeptRun(
            folder=self.folder / f"{number}_short",
            overrides=(*others, f"{ROUNDS}{self.first_rounds}"),
        )

    def __call__(
        self, number: int, values: Mapping[str, object], *, is_short: bool
    ) -> Score | None:
        """Runs what is missing of a trial and returns its score; None if it breaks a rule.

        Raises:
            ValueError: If the run was stopped by a fault, or its folder holds another one.
        """
        run = self.run_of(number, values, is_short=is_short)
        what = f"{'short run of ' if is_short else ''}trial {number}"
        self.console.print(f"{what}: {' '.join(format_point(values))}")
        try:
            check_run(run)
        except ValueError as error:
            if run.is_begun:
                raise
            self.console.print(f"{what} is left out: {error}")
            return None
        if (steps := list_missing_steps(run)) and launch(steps):
            raise ValueError(f"{what} was not finished; the same command goes on with it")
        return read_score(run.folder, self.arm)

    def check_space(self, space: Space) -> None:
        """Checks the ends and categories of a space before anything runs.

        Raises:
            ValueError: If one of them is no run, or it is not clear which arm is searched.
        """
        for values in list_corners(space):
            run = KeptRun(folder=self.folder / "corner", overrides=self._overrides(values))
            (experiment, *others) = check_run(run)
            if others or experiment.study.seeds:
                raise ValueError("a search makes plain runs; leave the seeds of the study away")
            name_searched_arm(list(experiment.arms), self.arm)
            self._check_rounds(experiment)

    def _overrides(self, values: Mapping[str, object]) -> tuple[str, ...]:
        return self.run_of(0, values, is_short=False).overrides

    def _check_rounds(self, experiment: Experiment) -> None:
        rounds, first = experiment.run.rounds, self.first_rounds
        if first is not None and not 1 <= first < rounds:
            raise ValueError(
                f"--first-rounds must be at least 1 and less than rounds={rounds}, got {first}"
            )


def name_searched_arm(arms: Sequence[str], asked: str | None) -> str:
    """Returns the arm that a search is about.

    Args:
        arms: The arms of a run, the reference first.
        asked: What was asked for; None for the only arm beside the reference.

    Raises:
        ValueError: If there is no such arm, or there are several.
    """
    if asked is not None and asked in arms:
        return asked
    if asked is not None or len(arms) > 2:
        raise ValueError(f"--arm must be one of {', '.join(arms)}, got {asked or 'none'}")
    return arms[-1]


def read_score(folder: Path, arm: str | None) -> Score:
    """Returns quality and joules of the arm that is searched, from a finished run.

    Raises:
        ValueError: If no device of the arm has a quality.
    """
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    name = name_searched_arm(list(summary["arms"]), arm)
    part = summary["arms"][name]
    quality, energy_j = part["quality"]["mean"], part["energy_j"]["total"]
    if quality is None or energy_j is None:
        raise ValueError(f"{folder} must have a quality and joules of {name}; take more rounds")
    return Score(quality=quality, energy_j=energy_j)
