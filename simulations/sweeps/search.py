"""Asks Optuna for points and tells it their quality and joules, in a file that outlives a kill.

The objective is an argument, so this module knows no run. What a trial tries depends only on the
seed and the trials before it. So a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

MARGIN = 0.05
"""By which share another short run must be better, in both objectives, to stop a trial."""

_OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_SHORT = "short run of trial {}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a trial came to: ``quality``, higher is better, and ``energy_j`` in joules."""

    quality: float
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A finished trial: its ``number``, the ``values`` by key, and its ``score``."""

    number: int
    values: Mapping[str, object]
    score: Score


class Objective(Protocol):
    """What is searched."""

    def __call__(
        self, number: int, values: Mapping[str, object], *, is_short: bool
    ) -> Score | None:
        """Returns the score of a point; None if the point is no experiment.

        Args:
            number: Of the trial. A trial that was stopped is asked for again by its number.
            values: By key.
            is_short: Whether a short run is asked for, by which a trial may be pruned.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How to search.

    Attributes:
        trials: Trials in all, those of earlier calls among them.
        seed: Of the sampler.
        prunes: Whether every trial begins with a short run.
    """

    trials: int
    seed: int
    prunes: bool = False


def search_front(
    file: Path, space: Mapping[str, BaseDistribution], objective: Objective, search: Search
) -> list[Trial]:
    """Returns the Pareto front after all trials, the one with the fewest joules first.

    A trial that was stopped is asked for again, and a point that was tried before is not. A trial
    with a short run is pruned if a finished trial's short run was better in both objectives by
    `MARGIN`: Optuna itself prunes a single objective only.

    Args:
        file: SQLite file of the study, made where it is not there.
        space: What is searched.
        objective: Scores a point.
        search: How many trials, their seed, and whether they are pruned.
    """
    study = _open(file)
    while (done := len(study.get_trials(deepcopy=False, states=_OVER))) < search.trials:
        # a sampler per trial: one that goes on in another process would repeat its first draws
        drawn = np.random.SeedSequence((search.seed, done)).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(seed=int(drawn[0]))
        number, values = _ask(study, space)
        _try(study, number, values, objective, prunes=search.prunes)
    return _front(study)


def _ask(
    study: optuna.Study, space: Mapping[str, BaseDistribution]
) -> tuple[int, Mapping[str, object]]:
    """Returns the trial that was stopped, or a new one."""
    for stopped in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if set(stopped.params) == set(space):
            return stopped.number, stopped.params
    trial = study.ask(fixed_distributions=dict(space))
    return trial.number, trial.params


def _try(
    study: optuna.Study,
    number: int,
    values: Mapping[str, object],
    objective: Objective,
    *,
    prunes: bool,
) -> None:
    for earlier in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if earlier.params == values:
            study.tell(number, earlier.values)
            return
    if prunes:
        short = objective(number, values, is_short=True)
        if short is None:
            study.tell(number, state=TrialState.FAIL)
            return
        if any(_is_dominated(short, other) for other in _short_scores(study)):
            study.tell(number, state=TrialState.PRUNED)
            return
        study.set_user_attr(_SHORT.format(number), [short.quality, short.energy_j])
    score = objective(number, values, is_short=False)
    if score is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, [score.quality, score.energy_j])


def _short_scores(study: optuna.Study) -> list[Score]:
    """Returns the scores of the short runs of finished trials."""
    kept: Mapping[str, Sequence[float]] = study.user_attrs
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = [name for one in finished if (name := _SHORT.format(one.number)) in kept]
    return [Score(quality=kept[name][0], energy_j=kept[name][1]) for name in names]


def _is_dominated(one: Score, other: Score) -> bool:
    """Returns whether another score is better in quality and in joules, each by `MARGIN`."""
    better = one.quality + MARGIN * abs(one.quality)
    return other.quality > better and other.energy_j < one.energy_j * (1 - MARGIN)


def _front(study: optuna.Study) -> list[Trial]:
    """Returns the trials that no other one beats; of equal points the first."""
    found: dict[tuple[tuple[str, object], ...], Trial] = {}
    best: list[FrozenTrial] = study.best_trials
    for one in sorted(best, key=lambda trial: trial.number):
        quality, energy_j = cast("list[float]", one.values)
        score = Score(quality=quality, energy_j=energy_j)
        trial = Trial(number=one.number, values=one.params, score=score)
        found.setdefault(tuple(sorted(one.params.items())), trial)
    return sorted(found.values(), key=lambda trial: (trial.score.energy_j, trial.number))


def list_trials(file: Path) -> list[FrozenTrial]:
    """Returns all trials of a search as Optuna keeps them; none if it is not begun."""
    return _open(file).get_trials(deepcopy=False) if file.exists() else []


def _open(file: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=f"sqlite:///{file}",
        study_name="search",
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )
