"""Selection: never over the quota, fifo keeps the newest, a reservoir is uniform and uncut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.selection import Fifo, Reservoir, Selection
from fleettune.exchanges import Exchange
from fleettune.seeds import Purpose, stream

both = pytest.mark.parametrize("selection", [Fifo(), Reservoir()], ids=["fifo", "reservoir"])
sizes = st.lists(st.integers(0, 40), max_size=25)
quotas = st.integers(0, 200)


def exchanges(sizes: Sequence[int]) -> tuple[Exchange, ...]:
    return tuple(
        Exchange(question="q" * (size // 2), response="r" * (size - size // 2), day=0, order=order)
        for order, size in enumerate(sizes)
    )


def drawn(exchange: Exchange, seed: int = 0) -> float:
    return float(stream(seed, Purpose.SELECTION, exchange.order).random())


def nights(
    selection: Selection, parts: Sequence[Sequence[Exchange]], quota_bytes: int
) -> tuple[Exchange, ...]:
    held: tuple[Exchange, ...] = ()
    for arrived in parts:
        held = selection.keep(held, arrived, quota_bytes, drawn)
    return held


@st.composite
def streams_and_cuts(draw: st.DrawFn) -> tuple[tuple[Exchange, ...], list[int]]:
    found = exchanges(draw(sizes))
    cuts = draw(st.lists(st.integers(0, len(found)), max_size=6))
    return found, [0, *sorted(cuts), len(found)]


@both
@settings(derandomize=True)
@given(stream_and_cuts=streams_and_cuts(), quota_bytes=quotas)
def test_no_night_ends_over_the_quota(
    selection: Selection, stream_and_cuts: tuple[tuple[Exchange, ...], list[int]], quota_bytes: int
) -> None:
    arrived, cuts = stream_and_cuts
    held: tuple[Exchange, ...] = ()
    for start, end in pairwise(cuts):
        before = {*held, *arrived[start:end]}
        held = selection.keep(held, arrived[start:end], quota_bytes, drawn)
        assert sum(exchange.size_bytes for exchange in held) <= quota_bytes
        assert set(held) <= before
        assert [exchange.order for exchange in held] == sorted({e.order for e in held})


@both
@settings(derandomize=True)
@given(stream_and_cuts=streams_and_cuts(), quota_bytes=quotas)
def test_how_the_stream_is_cut_into_nights_changes_nothing(
    selection: Selection, stream_and_cuts: tuple[tuple[Exchange, ...], list[int]], quota_bytes: int
) -> None:
    arrived, cuts = stream_and_cuts
    parts = [arrived[start:end] for start, end in pairwise(cuts)]
    assert nights(selection, parts, quota_bytes) == nights(selection, [arrived], quota_bytes)


def test_an_exchange_that_was_dropped_makes_no_difference_to_later_ones() -> None:
    # Priorities .1 .5 .9 for 5, 6 and 3 bytes under 10: the second is dropped beside the first
    # (11 bytes), the third fits (8 bytes), in one night as in three.
    three = exchanges([5, 6, 3])
    priority = {0: 0.1, 1: 0.5, 2: 0.9}
    at_once = Reservoir().keep((), three, 10, lambda exchange: priority[exchange.order])
    held: tuple[Exchange, ...] = ()
    for exchange in three:
        held = Reservoir().keep(held, [exchange], 10, lambda exchange: priority[exchange.order])
    assert at_once == held == (three[0], three[2])


@settings(derandomize=True)
@given(sizes=sizes, quota_bytes=quotas)
def test_fifo_keeps_the_longest_run_of_newest_exchanges(sizes: list[int], quota_bytes: int) -> None:
    arrived = exchanges(sizes)
    kept = Fifo().keep((), arrived, quota_bytes, drawn)
    assert kept == arrived[len(arrived) - len(kept) :]
    if len(kept) < len(arrived):
        next_older = arrived[len(arrived) - len(kept) - 1]
        assert sum(e.size_bytes for e in (*kept, next_older)) > quota_bytes


def test_fifo_drops_the_oldest_of_equal_sizes() -> None:
    arrived = exchanges([10] * 6)
    assert Fifo().keep(arrived[:3], arrived[3:], 40, drawn) == arrived[2:]


def test_a_reservoir_keeps_those_of_lowest_priority_where_sizes_are_equal() -> None:
    arrived = exchanges([10] * 9)
    lowest = sorted(arrived, key=drawn)[:4]
    kept = Reservoir().keep((), arrived, 45, drawn)
    assert kept == tuple(sorted(lowest, key=lambda exchange: exchange.order))


def test_a_reservoir_keeps_every_exchange_equally_often() -> None:
    arrived, draws, kept_of_each = exchanges([10] * 12), 3000, 5
    counts = np.zeros(len(arrived))
    for seed in range(draws):
        kept = Reservoir().keep((), arrived, 10 * kept_of_each, lambda e, seed=seed: drawn(e, seed))
        counts[[exchange.order for exchange in kept]] += 1
    share = kept_of_each / len(arrived)
    # Each count is binomial; 4 standard deviations, with fixed seeds, so no flake.
    spread = np.sqrt(draws * share * (1 - share))
    assert counts.sum() == draws * kept_of_each
    assert np.abs(counts - draws * share).max() < 4 * spread


def test_a_reservoir_passes_over_what_alone_is_over_the_quota() -> None:
    small, huge = exchanges([10, 500])
    kept = Reservoir().keep([small], [huge], 100, lambda exchange: -exchange.order)
    assert kept == (small,)


@both
def test_an_empty_quota_holds_nothing(selection: Selection) -> None:
    assert selection.keep((), exchanges([3, 4]), 0, drawn) == ()
    assert selection.keep(exchanges([3]), (), 0, drawn) == ()


@both
def test_bytes_are_those_of_utf8(selection: Selection) -> None:
    # "é" is 2 bytes and "€" 3 in UTF-8.
    exchange = Exchange(question="é", response="€", day=0, order=0)
    assert selection.keep((), [exchange], 4, drawn) == ()
    assert selection.keep((), [exchange], 5, drawn) == (exchange,)
