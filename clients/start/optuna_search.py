"""Searches of a catalogue by Optuna (Akiba et al. 2019), rivals of the explained start.

``bayesian``: a tree-structured Parzen estimator over the entries, for half of them. ``hyperband``:
every entry is tried on growing parts of the user's exchanges, and Hyperband (Li et al. 2018) prunes
those that fall behind. Optuna is an optional dependency: ``pip install fleettune[xpert]``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from clients.start.rivals import Picked
from fleettune.adapters.patch import Patch
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, ScoreJob

SEARCHES = ("bayesian", "hyperband")
_REDUCTION = 3


def check_optuna() -> None:
    """Raises ValueError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ValueError(
            f"start.pick of {SEARCHES} needs Optuna, which is not installed: "
            "pip install 'fleettune[xpert]'"
        )


def pick_by_search(
    pick: str,
    examples: Sequence[Example],
    patches: Sequence[Patch],
    release: str,
    compute: Compute,
    seed: int,
) -> Picked:
    """Returns the entry that a search finds; equal seeds, equal searches.

    Args:
        pick: One of `SEARCHES`.
        examples: The user's exchanges.
        patches: Those of all entries.
        release: Folder of the release.
        compute: The device's processor.
        seed: Key of the search.
    """
    optuna: Any = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    most = len(examples)
    rungs = sorted({max(1, most // _REDUCTION**2), max(1, most // _REDUCTION), most})
    study = optuna.create_study(
        sampler=_sampler(optuna, pick, len(patches), seed),
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=rungs[0], max_resource=most, reduction_factor=_REDUCTION
        )
        if pick == "hyperband"
        else optuna.pruners.NopPruner(),
    )
    steps = rungs if pick == "hyperband" else [most]
    scored = [0] * len(patches)
    losses: dict[int, float] = {}
    trials = len(patches) if pick == "hyperband" else max(2, len(patches) // 2)
    if pick == "hyperband":
        for entry in np.random.default_rng(seed).permutation(len(patches)).tolist():
            study.enqueue_trial({"entry": entry})
    for _ in range(trials):
        trial = study.ask()
        entry = int(trial.suggest_categorical("entry", list(range(len(patches)))))
        pruned, loss = False, 0.0
        for count in steps:
            part = tuple(examples[:count])
            job = ScoreJob(release=release, patch=patches[entry], examples=part)
            loss = sum(compute.score(job).nll) / count
            scored[entry] = max(scored[entry], count)
            trial.report(loss, count)
            pruned = count < most and trial.should_prune()
            if pruned:
                break
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, loss)
            losses[entry] = loss
    return Picked(entry=min(losses, key=losses.__getitem__), scored=tuple(scored))


def _sampler(optuna: Any, pick: str, entries: int, seed: int) -> Any:  # noqa: ANN401 - no types
    if pick == "hyperband":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(2, entries // 4))
