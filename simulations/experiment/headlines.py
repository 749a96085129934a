"""Headline metrics: what the quality of a run may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A metric that heads the tables of a run. Higher is better.

    Attributes:
        column: The column of ``rows.parquet`` that it is read from.
        sign: 1, or -1 where a lower value of the column is better.
        words: What readers are told that it is.
        is_share: Whether it is a share, shown in percent, its changes in percentage points.
    """

    column: str
    sign: float
    words: str
    is_share: bool = True


UNSEEN = "exact_match_unseen"
"""Exact match of answers that never stood in what a device had read."""

HEADLINES: Mapping[str, Headline] = {
    "exact_match": Headline(column="exact_match", sign=1.0, words="exact match"),
    UNSEEN: Headline(column=UNSEEN, sign=1.0, words="exact match of unseen answers"),
    "neg_mae": Headline(
        column="mae", sign=-1.0, words="negative mean absolute error", is_share=False
    ),
    "neg_nll": Headline(
        column="nll", sign=-1.0, words="log-likelihood, nats per token", is_share=False
    ),
    "rouge1": Headline(column="rouge1", sign=1.0, words="ROUGE-1 F1 of greedy answers"),
}
"""By the name that ``quality.metric`` gives them."""
