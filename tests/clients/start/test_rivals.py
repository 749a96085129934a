"""Rivals of an explained start: what they pick and what they pay for."""

from __future__ import annotations

from clients.start.rivals import PickedEntry, pick_by_halving, pick_exhaustively, scoring_work
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, Job, Result, ScoreJob, ScoreResult
from tests.clients.start.offered import RELEASE, facts, patch


def scoring(losses: dict[str, float]) -> Compute:
    def run(job: Job) -> Result:
        assert isinstance(job, ScoreJob)
        assert job.patch is not None
        each = losses[job.patch.digest()]
        return ScoreResult(nll=(each,) * len(job.examples), hits=(0,) * len(job.examples))

    return Compute(run=run)


def test_rivals_find_the_likeliest_entry_and_pay_for_every_one_they_tried() -> None:
    patches = [patch(float(value)) for value in range(1, 10)]
    losses = {one.digest(): float(9 - n if n < 7 else n) for n, one in enumerate(patches)}
    examples = [Example(tokens=(1, 2, 3), prompt=1)] * 9
    compute = scoring(losses)
    every = pick_exhaustively(examples, patches, "", compute)
    halved = pick_by_halving(examples, patches, "", compute)
    assert every.entry == halved.entry == 6
    assert every.scored == (9,) * 9
    # one in three stays: nine with 3 exchanges, three with 9
    assert sorted(halved.scored) == [3] * 6 + [9] * 3


def test_a_rivals_cost_grows_with_the_entries_that_it_tries() -> None:
    patches, examples = [patch(1.0), patch(2.0)], [Example(tokens=(1, 2, 3), prompt=1)]
    one = scoring_work(facts(), RELEASE, PickedEntry(entry=0, scored=(1, 0)), patches, examples)
    both = scoring_work(facts(), RELEASE, PickedEntry(entry=0, scored=(1, 1)), patches, examples)
    assert sum(e[2].flop for e in both) == 2 * sum(e[2].flop for e in one)
    assert sum(e[2].moved_bytes for e in both) == 2 * sum(e[2].moved_bytes for e in one)
