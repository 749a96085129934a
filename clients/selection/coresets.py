"""Coresets, rivals of quality selection: they keep what covers the stream's embeddings.

`KCenter` is the greedy streaming form: whenever the buffer is full, one of the two exchanges
nearest to each other goes (Charikar et al. 1997, center-greedy with the centres as points).
`Herding` keeps the exchanges whose mean embedding is that of all seen (Welling 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clients.selection.buffer import (
    Arrival,
    Item,
    Note,
    round_score,
    sort_by_time,
    total_bytes,
    unit_rows,
)
from clients.selection.rules import Embeddings, Priority, check_vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class KCenter:
    """Keeps exchanges far from each other.

    Exchanges come in one by one, so how the stream is cut into nights changes nothing.

    Attributes:
        vectors: ``stored`` beside the exchanges, or made ``again`` whenever others arrive.
    """

    vectors: str = Embeddings.STORED

    def __post_init__(self) -> None:
        check_vectors(self.vectors)

    @property
    def embeddings(self) -> str:
        """What becomes of embeddings."""
        return self.vectors

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        """Returns what is left; what alone is too large is passed over."""
        kept = _spread(list(sort_by_time(held)), quota_bytes, priority)
        for arrival in sorted(arrived, key=lambda arrival: arrival.order):
            note = Note(vector=arrival.vector, lent=arrival.lent)
            new = Item(exchange=arrival.exchange, note=note)
            if new.size_bytes <= quota_bytes:
                kept = _spread([*kept, new], quota_bytes, priority)
        return sort_by_time(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Herding:
    """Keeps exchanges whose mean embedding comes nearest to the mean of all seen.

    Beside its embedding every held exchange keeps a weight: how many of those seen it stands for.
    The mean of all seen is theirs and the arrivals', so it is not stored.

    Attributes:
        vectors: ``stored`` beside the exchanges, or made ``again`` whenever others arrive.
    """

    vectors: str = Embeddings.STORED

    def __post_init__(self) -> None:
        check_vectors(self.vectors)

    @property
    def embeddings(self) -> str:
        """What becomes of embeddings."""
        return self.vectors

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        """Returns the exchanges that a greedy choice from held and arrived takes while one fits."""
        new = [
            Item(
                exchange=arrival.exchange,
                note=Note(vector=arrival.vector, scores=(1.0,), lent=arrival.lent),
            )
            for arrival in arrived
        ]
        every = sort_by_time((*held, *new))
        if not every or (total_bytes(every) <= quota_bytes):
            return every
        weights = np.array([item.note.scores[0] for item in every])
        kept = _herd(every, weights, quota_bytes, priority)
        share = round_score(float(weights.sum()) / max(1, len(kept)))
        return sort_by_time(
            Item(exchange=item.exchange, note=replace(item.note, scores=(share,))) for item in kept
        )


def _spread(items: list[Item], quota_bytes: int, priority: Priority) -> list[Item]:
    """Returns items within the quota after one of the nearest pair went, as often as needed."""
    while total_bytes(items) > quota_bytes:
        gone = 0 if len(items) == 1 else _crowded(items, priority)
        items = [item for place, item in enumerate(items) if place != gone]
    return items


def _crowded(items: Sequence[Item], priority: Priority) -> int:
    """Returns which of the nearest pair is nearer to a third; the keyed number decides a tie."""
    rows = unit_rows([item.note.vector for item in items])
    apart = 1.0 - rows @ rows.T
    np.fill_diagonal(apart, np.inf)
    nearest = np.partition(apart, 1, axis=1)[:, :2]
    second = nearest[:, 1]
    # rounded, so that equal distances are equal whatever the order of their sums
    keys = [
        (round(float(nearest[place, 0]), 6), round(float(second[place]), 6), -priority(e.exchange))
        for place, e in enumerate(items)
    ]
    return min(range(len(items)), key=lambda place: (*keys[place], -items[place].order))


def _herd(
    items: Sequence[Item], weights: NDArray[np.float64], quota_bytes: int, priority: Priority
) -> list[Item]:
    rows = unit_rows([item.note.vector for item in items]).astype(np.float64)
    target = weights @ rows / weights.sum()
    sizes = np.array([item.size_bytes for item in items])
    ties = np.array([priority(item.exchange) for item in items])
    left = np.ones(len(items), dtype=bool)
    total, used = np.zeros_like(target), 0
    kept: list[Item] = []
    while True:
        places = np.flatnonzero(left & (used + sizes <= quota_bytes))
        if not len(places):
            return kept
        means = (total + rows[places]) / (len(kept) + 1)
        errors = np.linalg.norm(means - target, axis=1).round(9)
        best = int(places[np.lexsort((ties[places], errors))[0]])
        left[best] = False
        total += rows[best]
        used += int(sizes[best])
        kept.append(items[best])
