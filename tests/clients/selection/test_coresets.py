"""Coresets against brute force: the widest subset step by step, the subset nearest in mean."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.selection.buffer import Arrival, pack_vector, unit_rows
from clients.selection.coresets import Herding, KCenter
from fleettune.data.exchanges import Exchange

ITEM = 1 + 4  # a text of one byte and two numbers of two bytes
angles = st.lists(st.integers(0, 179), min_size=1, max_size=9, unique=True)


def drawn(exchange: Exchange) -> float:
    return (exchange.order * 0.37) % 1


def readings(angles: list[int]) -> list[Arrival]:
    return [
        Arrival(
            exchange=Exchange(question="q", response="", day=0, order=order),
            vector=pack_vector(np.array([np.cos(turn), np.sin(turn)], np.float32)),
        )
        for order, turn in enumerate(np.radians(angles))
    ]


def closest(places: tuple[int, ...], rows: np.ndarray) -> float:
    """Smallest 1 - cos between two of these."""
    return min((1 - float(rows[a] @ rows[b]) for a, b in combinations(places, 2)), default=9.0)


@settings(derandomize=True, deadline=None)
@given(angles=angles, bins=st.integers(1, 5))
def test_every_arrival_leaves_the_widest_of_all_sets_that_lack_one(
    angles: list[int], bins: int
) -> None:
    arrived = readings(angles)
    rows = unit_rows([item.vector for item in arrived])
    held = ()
    for number, item in enumerate(arrived):
        before = (*(kept.order for kept in held), number)
        held = KCenter().keep(held, [item], bins * ITEM, drawn)
        found = tuple(kept.order for kept in held)
        assert len(found) == min(bins, number + 1)
        if len(before) > bins > 1:
            best = max(closest(rest, rows) for rest in combinations(before, bins))
            assert closest(found, rows) == pytest.approx(best, abs=2e-6)


def test_three_clusters_and_three_bins_keep_one_of_each() -> None:
    # 1 - cos is below .01 within a cluster and above .5 between two: brute force agrees
    turns = [0, 3, 90, 6, 93, 170, 2, 91, 173]
    kept = KCenter().keep((), readings(turns), 3 * ITEM, drawn)
    assert sorted(round(turns[item.order] / 90) for item in kept) == [0, 1, 2]
    radius = max(min(abs(turn - turns[item.order]) for item in kept) for turn in turns)
    best = min(
        max(min(abs(turn - centre) for centre in centres) for turn in turns)
        for centres in combinations(turns, 3)
    )
    assert radius <= 2 * best


@settings(derandomize=True, deadline=None)
@given(angles=angles, bins=st.integers(1, 5))
def test_herding_takes_what_brings_the_mean_nearest_at_every_step(
    angles: list[int], bins: int
) -> None:
    arrived = readings(angles)
    rows = unit_rows([item.vector for item in arrived]).astype(float)
    target = rows.mean(axis=0)
    kept = Herding().keep((), arrived, bins * (ITEM + 4), drawn)
    assert len(kept) == min(bins, len(arrived))
    if len(arrived) <= bins:
        return
    chosen: list[int] = []
    for _ in range(bins):
        left = [place for place in range(len(arrived)) if place not in chosen]
        errors = {p: np.linalg.norm(rows[[*chosen, p]].mean(axis=0) - target) for p in left}
        least = min(errors.values())
        tied = [place for place in left if errors[place] < least + 1e-8]
        chosen.append(min(tied, key=lambda place: drawn(arrived[place].exchange)))
    assert sorted(chosen) == [item.order for item in kept]


def test_herding_finds_the_best_pair_of_a_toy() -> None:
    # a large cluster around 10 degrees, a small one around 100: the best pair is one of each or two
    # of the large one, as brute force says
    turns = [8, 10, 12, 9, 11, 98, 100, 102]
    arrived = readings(turns)
    rows = unit_rows([item.vector for item in arrived]).astype(float)
    target = rows.mean(axis=0)
    kept = tuple(item.order for item in Herding().keep((), arrived, 2 * (ITEM + 4), drawn))
    errors: dict[tuple[int, ...], float] = {
        pair: float(np.linalg.norm(rows[list(pair)].mean(axis=0) - target))
        for pair in combinations(range(len(turns)), 2)
    }
    assert errors[kept] <= 1.2 * min(errors.values())


def test_herding_remembers_how_many_an_exchange_stands_for() -> None:
    # ten alike, then two unlike: with one bin the mean of all twelve is still nearest to the ten
    first = Herding().keep((), readings([10] * 10), ITEM + 4, drawn)
    assert [item.note.scores for item in first] == [(10.0,)]
    later = readings([10] * 10 + [95, 95])[10:]
    (kept,) = Herding().keep(first, later, ITEM + 4, drawn)
    assert kept.order < 10
    assert kept.note.scores == (12.0,)


@pytest.mark.parametrize("rule", [KCenter, Herding])
def test_an_unknown_use_of_embeddings_is_refused(rule: type) -> None:
    with pytest.raises(ValueError, match=r"vectors must be one of .*, got 'none'"):
        rule(vectors="none")
