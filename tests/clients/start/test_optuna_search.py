"""Searches by Optuna: they find what scoring all entries finds where all is tried, and repeat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from clients.start.optuna_search import check_optuna, pick_by_search
from fleettune.adapters.patch import Factors, Patch
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, Job, Result, ScoreJob, ScoreResult
from fleettune.shapes import Site

EXAMPLES = tuple(Example(tokens=(1, 2, 3), prompt=1) for _ in range(9))


def patch(size: float) -> Patch:
    factors = Factors(a=np.ones((1, 2), np.float32), b=np.full((2, 1), size, np.float32))
    return Patch(release=0, alpha=1.0, factors={Site(0, "q"): factors})


def compute() -> Compute:
    def run(job: Job) -> Result:
        assert isinstance(job, ScoreJob)
        assert job.patch is not None
        loss = abs(float(job.patch.factors[Site(0, "q")].b[0, 0]) - 5.0)
        return ScoreResult(nll=(loss,) * len(job.examples), hits=(0,) * len(job.examples))

    return Compute(run=run)


PATCHES: Sequence[Patch] = [patch(float(size)) for size in range(8)]


def test_hyperband_keeps_the_likeliest_entry_and_prunes_others() -> None:
    pytest.importorskip("optuna")
    found = pick_by_search("hyperband", EXAMPLES, PATCHES, "", compute(), 1)
    assert found.entry == 5
    assert min(found.scored) >= 1
    assert sum(found.scored) < len(PATCHES) * len(EXAMPLES)


def test_a_bayesian_search_tries_half_of_the_entries_and_is_repeatable() -> None:
    pytest.importorskip("optuna")
    found = pick_by_search("bayesian", EXAMPLES, PATCHES, "", compute(), 1)
    tried = [number for number, count in enumerate(found.scored) if count]
    assert len(tried) <= len(PATCHES) // 2
    assert found.entry == min(tried, key=lambda number: abs(number - 5))
    assert found == pick_by_search("bayesian", EXAMPLES, PATCHES, "", compute(), 1)


def test_without_optuna_a_search_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="Optuna"):
        check_optuna()
