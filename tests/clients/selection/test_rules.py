"""Selection: never over the quota whatever the stream; what fifo, reservoir and random keep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.selection.buffer import Arrival, Item, fit_quota, pack_vector, total_bytes
from clients.selection.coresets import Herding, KCenter
from clients.selection.lexicon import Lexicon
from clients.selection.quality import QualityReplace
from clients.selection.rules import Fifo, RandomReplace, Reservoir, Selection, shuffle
from fleettune.data.exchanges import Exchange
from fleettune.seeds import Purpose, stream

LEXICON = (Lexicon(domain="one", words="q qq qqq"), Lexicon(domain="two", words="r rr rrr"))
RULES: dict[str, Selection] = {
    "fifo": Fifo(),
    "reservoir": Reservoir(),
    "random_replace": RandomReplace(),
    "k_center": KCenter(),
    "herding": Herding(),
    "published": QualityReplace(lexicon=LEXICON),
    "balanced": QualityReplace(lexicon=LEXICON, rule="balanced", eoe="standardised", idd="nearest"),
    "dss": QualityReplace(lexicon=LEXICON, scores=("dss",)),
}
every = pytest.mark.parametrize("selection", RULES.values(), ids=RULES)
"""All rules."""
one_by_one = pytest.mark.parametrize(
    "selection", [rule for name, rule in RULES.items() if name != "herding"]
)
"""Those that take the stream exchange by exchange."""
both = pytest.mark.parametrize("selection", [Fifo(), Reservoir()], ids=["fifo", "reservoir"])
sizes = st.lists(st.integers(0, 40), max_size=25)
quotas = st.integers(0, 400)


def readings(sizes: Sequence[int]) -> tuple[Arrival, ...]:
    """Arrivals of these bytes with embeddings of four numbers, some of them alike."""
    return tuple(
        Arrival(
            exchange=Exchange(
                question="q" * (size // 2), response="r" * (size - size // 2), day=0, order=order
            ),
            vector=pack_vector(np.array([1, size % 3, size % 5, size % 2], np.float32)),
            entropy=float(np.log(2 + size % 7)),
            tokens=9,
        )
        for order, size in enumerate(sizes)
    )


def exchanges(held: Sequence[Item | Arrival]) -> tuple[Exchange, ...]:
    return tuple(item.exchange for item in held)


def drawn(exchange: Exchange, seed: int = 0) -> float:
    return float(stream(seed, Purpose.SELECTION, exchange.order).random())


def nights(
    selection: Selection, parts: Sequence[Sequence[Arrival]], quota_bytes: int
) -> tuple[Item, ...]:
    held: tuple[Item, ...] = ()
    for arrived in parts:
        held = selection.keep(held, arrived, quota_bytes, drawn)
    return held


@st.composite
def streams_and_cuts(draw: st.DrawFn) -> tuple[tuple[Arrival, ...], list[int]]:
    found = readings(draw(sizes))
    cuts = draw(st.lists(st.integers(0, len(found)), max_size=6))
    return found, [0, *sorted(cuts), len(found)]


@every
@settings(derandomize=True, deadline=None)
@given(stream_and_cuts=streams_and_cuts(), quotas=st.lists(quotas, min_size=7, max_size=7))
def test_no_night_ends_over_the_quota(
    selection: Selection,
    stream_and_cuts: tuple[tuple[Arrival, ...], list[int]],
    quotas: list[int],
) -> None:
    arrived, cuts = stream_and_cuts
    held: tuple[Item, ...] = ()
    for (start, end), quota_bytes in zip(pairwise(cuts), quotas, strict=False):
        before = {*exchanges(held), *exchanges(arrived[start:end])}
        held = selection.keep(held, arrived[start:end], quota_bytes, drawn)
        assert total_bytes(held) <= quota_bytes
        assert set(exchanges(held)) <= before
        assert [item.order for item in held] == sorted({item.order for item in held})
        assert fit_quota(held, quota_bytes) == held


@every
@settings(derandomize=True, deadline=None)
@given(data=st.data(), sizes=sizes, quota_bytes=quotas)
def test_in_which_order_a_buffer_is_listed_changes_nothing(
    selection: Selection, data: st.DataObject, sizes: list[int], quota_bytes: int
) -> None:
    # many of these exchanges are alike in every score: the keyed numbers alone decide
    arrived = readings(sizes)
    half = len(arrived) // 2
    held = selection.keep((), arrived[:half], quota_bytes, drawn)
    listed = data.draw(st.permutations(held))
    came = data.draw(st.permutations(arrived[half:]))
    expected = selection.keep(held, arrived[half:], quota_bytes, drawn)
    assert selection.keep(listed, came, quota_bytes, drawn) == expected


@one_by_one
@settings(derandomize=True, deadline=None)
@given(stream_and_cuts=streams_and_cuts(), quota_bytes=quotas)
def test_how_the_stream_is_cut_into_nights_changes_nothing(
    selection: Selection, stream_and_cuts: tuple[tuple[Arrival, ...], list[int]], quota_bytes: int
) -> None:
    arrived, cuts = stream_and_cuts
    parts = [arrived[start:end] for start, end in pairwise(cuts)]
    assert nights(selection, parts, quota_bytes) == nights(selection, [arrived], quota_bytes)


def test_an_exchange_that_was_dropped_makes_no_difference_to_later_ones() -> None:
    # Priorities .1 .5 .9 for 5, 6 and 3 bytes under 10: the second is dropped beside the first
    # (11 bytes), the third fits (8 bytes), in one night as in three.
    three = readings([5, 6, 3])
    priority = {0: 0.1, 1: 0.5, 2: 0.9}
    at_once = Reservoir().keep((), three, 10, lambda exchange: priority[exchange.order])
    held: tuple[Item, ...] = ()
    for reading in three:
        held = Reservoir().keep(held, [reading], 10, lambda exchange: priority[exchange.order])
    assert at_once == held
    assert exchanges(held) == exchanges((three[0], three[2]))


@settings(derandomize=True)
@given(sizes=sizes, quota_bytes=quotas)
def test_fifo_keeps_the_longest_run_of_newest_exchanges(sizes: list[int], quota_bytes: int) -> None:
    arrived = exchanges(readings(sizes))
    kept = exchanges(Fifo().keep((), readings(sizes), quota_bytes, drawn))
    assert kept == arrived[len(arrived) - len(kept) :]
    if len(kept) < len(arrived):
        next_older = arrived[len(arrived) - len(kept) - 1]
        assert sum(e.size_bytes for e in (*kept, next_older)) > quota_bytes


def test_fifo_drops_the_oldest_of_equal_sizes() -> None:
    arrived = readings([10] * 6)
    held = Fifo().keep((), arrived[:3], 40, drawn)
    assert exchanges(Fifo().keep(held, arrived[3:], 40, drawn)) == exchanges(arrived[2:])


def test_a_reservoir_keeps_those_of_lowest_priority_where_sizes_are_equal() -> None:
    arrived = readings([10] * 9)
    lowest = sorted(exchanges(arrived), key=drawn)[:4]
    kept = Reservoir().keep((), arrived, 45, drawn)
    assert exchanges(kept) == tuple(sorted(lowest, key=lambda exchange: exchange.order))


def test_a_reservoir_keeps_every_exchange_equally_often() -> None:
    arrived, draws, kept_of_each = readings([10] * 12), 3000, 5
    counts = np.zeros(len(arrived))
    for seed in range(draws):
        kept = Reservoir().keep((), arrived, 10 * kept_of_each, lambda e, seed=seed: drawn(e, seed))
        counts[[item.order for item in kept]] += 1
    share = kept_of_each / len(arrived)
    # Each count is binomial; 4 standard deviations, with fixed seeds, so no flake.
    spread = np.sqrt(draws * share * (1 - share))
    assert counts.sum() == draws * kept_of_each
    assert np.abs(counts - draws * share).max() < 4 * spread


@pytest.mark.parametrize("selection", [Reservoir(), RandomReplace(), KCenter()])
def test_what_alone_is_over_the_quota_is_passed_over(selection: Selection) -> None:
    small, huge = readings([10, 500])
    held = selection.keep((), [small], 100, drawn)
    assert exchanges(selection.keep(held, [huge], 100, drawn)) == (small.exchange,)


def test_random_replacement_always_takes_the_newest_and_drops_each_held_one_equally_often() -> None:
    arrived, draws = readings([10] * 6), 4000
    gone = np.zeros(5)
    for seed in range(draws):
        kept = RandomReplace().keep((), arrived, 50, lambda e, seed=seed: drawn(e, seed))
        assert kept[-1].order == 5
        (missing,) = set(range(6)) - {item.order for item in kept}
        gone[missing] += 1
    # each count is binomial with 1/5; 4 standard deviations, with fixed seeds
    assert np.abs(gone - draws / 5).max() < 4 * np.sqrt(draws * 0.2 * 0.8)


def test_one_number_shuffles_evenly() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for number in (np.arange(6000) + 0.5) / 6000:
        found = tuple(shuffle([0, 1, 2], float(number)))
        counts[found] = counts.get(found, 0) + 1
    assert sorted(counts.values()) == [1000] * 6


@every
def test_an_empty_quota_holds_nothing(selection: Selection) -> None:
    assert selection.keep((), readings([3, 4]), 0, drawn) == ()
    held = selection.keep((), readings([3]), 400, drawn)
    assert len(held) == 1
    assert selection.keep(held, (), 0, drawn) == ()


@both
def test_bytes_are_those_of_utf8(selection: Selection) -> None:
    # "é" is 2 bytes and "€" 3 in UTF-8.
    exchange = Exchange(question="é", response="€", day=0, order=0)
    reading = Arrival(exchange=exchange)
    assert selection.keep((), [reading], 4, drawn) == ()
    assert exchanges(selection.keep((), [reading], 5, drawn)) == (exchange,)


def test_embeddings_and_scores_count_as_they_are_stored() -> None:
    # 10 bytes of text; 4 numbers of 2 bytes; three scores and a domain of 4 bytes each, a weight
    (reading,) = readings([10])
    sizes = {"fifo": 10, "k_center": 18, "herding": 22, "published": 34, "dss": 14}
    for name, size in sizes.items():
        assert RULES[name].keep((), [reading], size - 1, drawn) == ()
        assert total_bytes(RULES[name].keep((), [reading], size, drawn)) == size
