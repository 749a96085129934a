"""Corpus files: text of the vendor's own that a release is trained on, instead of users' text.

One row is one exchange, in the columns of `fleettune.data.row_file`: ``response``, and
``question``, which may be empty. Whose they are does not matter, so ``user_id`` and ``order`` may
be missing. Parquet or JSON Lines, by the ending of the file's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fleettune.data.exchanges import Exchange
from fleettune.data.row_file import SUFFIXES, RowFile
from fleettune.releases.manifest import file_digest
from fleettune.seeds import Purpose, stream
from strategies.releases.schedule import ReleasePlan, Schedule


def corpus_rows(plan: ReleasePlan, key: int) -> Sequence[Exchange]:
    """Returns the exchanges of a plan's corpus that its release trains on, in that order.

    Args:
        plan: A plan with a corpus.
        key: Key of the draw of ``plan.conversations`` rows; all of them where there are fewer.

    Raises:
        ValueError: Naming the release and the rule that its file breaks.
    """
    rows = _read(plan)
    drawn = stream(key, Purpose.RELEASE, 3).permutation(rows.height)[: plan.conversations]
    return [
        Exchange(question=question, response=response, day=0, order=order, domain=domain)
        for order, (question, response, domain) in enumerate(rows[drawn.tolist()].iter_rows())
    ]


def check_corpora(schedule: Schedule) -> None:
    """Raises ValueError if a corpus of a schedule is missing, empty or not as documented."""
    for plan in (schedule.initial, *schedule.plans):
        if plan is not None and plan.corpus:
            _read(plan)


def corpus_digest(plan: ReleasePlan) -> str:
    """Returns the SHA-256 of a plan's corpus file; empty without one."""
    return file_digest(Path(plan.corpus)) if plan.corpus else ""


def plan_identity(plan: ReleasePlan) -> Mapping[str, Any]:
    """Returns what of a plan is part of its release's key: a corpus by content, not by place."""
    named = {"corpus": corpus_digest(plan)} if plan.corpus else {}
    return {**plan.identity, **named}


def _read(plan: ReleasePlan) -> pl.DataFrame:
    """Returns question, response and domain of every row."""
    known = [name for name, ends in SUFFIXES.items() if Path(plan.corpus).suffix in ends]
    try:
        if not known:
            ends = ", ".join(end for ends in SUFFIXES.values() for end in ends)
            raise ValueError(f"path must end in one of {ends}, got {plan.corpus!r}")
        return RowFile(path=plan.corpus, format=known[0], anonymous=True).read()
    except ValueError as error:
        raise ValueError(f"release {plan.name}: corpus: {error}") from error
