"""Knapsack with a cut: near brute force on toys, equal where nothing binds, never over a limit."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.placement.knapsack import Cut, Item, best_cut

LAYERS = 4
numbers = st.integers(0, 1000).map(float)
costs = st.tuples(numbers, numbers, numbers)
items = st.lists(
    st.builds(Item, value=numbers, depth=st.integers(0, LAYERS - 1), costs=costs),
    min_size=1,
    max_size=12,
)
cut_sets = st.lists(st.builds(Cut, depth=st.integers(0, LAYERS - 1), costs=costs), max_size=4)
limits = st.tuples(*[st.integers(0, 4000).map(float)] * 3)


def brute_force(given: list[Item], cuts: list[Cut], limit: tuple[float, ...]) -> float:
    """The largest sum of values of all sets of all cuts, 0 where nothing fits."""
    best = 0.0
    for cut in cuts:
        able = [item for item in given if item.depth >= cut.depth]
        for chosen in itertools.product((False, True), repeat=len(able)):
            taken = [item for item, wanted in zip(able, chosen, strict=True) if wanted]
            spent = [sum(c) for c in zip(cut.costs, *(item.costs for item in taken), strict=True)]
            if all(s <= most for s, most in zip(spent, limit, strict=True)):
                best = max(best, sum(item.value for item in taken))
    return best


@settings(derandomize=True, deadline=None, max_examples=150)
@given(items, cut_sets, limits)
def test_a_toy_reaches_98_percent_of_brute_force_within_every_limit(
    given: list[Item], cuts: list[Cut], limit: tuple[float, ...]
) -> None:
    found, best = best_cut(given, cuts, limit), brute_force(given, cuts, limit)
    if found is None:
        assert best == 0
        return
    taken = [given[place] for place in found.taken]
    assert found.value == sum(item.value for item in taken) >= 0.98 * best
    assert all(item.depth >= found.cut.depth for item in taken)
    assert all(cost <= most for cost, most in zip(found.costs, limit, strict=True))
    spent = [sum(c) for c in zip(found.cut.costs, *(i.costs for i in taken), strict=True)]
    assert list(found.costs) == spent


@settings(derandomize=True, deadline=None)
@given(items)
def test_everything_of_value_is_taken_where_nothing_binds(given: list[Item]) -> None:
    found = best_cut(given, [Cut(depth=0, costs=(0.0, 0.0, 0.0))], (1e9, 1e9, 1e9))
    worth = tuple(place for place, item in enumerate(given) if item.value > 0)
    assert (found.taken if found else ()) == worth


def test_the_better_of_two_cuts_by_hand() -> None:
    # 10 joules: down to layer 0 costs 6 and leaves 4, layer 1 costs 1 and leaves 9.
    given = [Item(value=v, depth=d, costs=(c,)) for v, d, c in ((9, 0, 4), (5, 1, 4), (5, 1, 5))]
    cuts = [Cut(depth=0, costs=(6.0,)), Cut(depth=1, costs=(1.0,))]
    found = best_cut(given, cuts, (10.0,))
    assert found is not None
    assert (found.cut.depth, found.taken, found.value, found.costs) == (1, (1, 2), 10, (10.0,))


def test_equal_values_take_the_cheaper_cut() -> None:
    given = [Item(value=1.0, depth=1, costs=(1.0,))]
    found = best_cut(given, [Cut(depth=d, costs=(5.0 - d,)) for d in (0, 1)], (10.0,))
    assert found is not None
    assert found.cut.depth == 1


def test_a_greedy_choice_that_is_half_as_good_is_corrected() -> None:
    # by ratio the small one goes first and the large one no longer fits
    given = [Item(value=2.0, depth=0, costs=(1.0,)), Item(value=10.0, depth=0, costs=(10.0,))]
    found = best_cut(given, [Cut(depth=0, costs=(0.0,))], (10.0,))
    assert found is not None
    assert found.taken == (1,)


def test_unlike_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 dimensions"):
        best_cut([Item(value=1.0, depth=0, costs=(1.0,))], [], (1.0, 1.0))
