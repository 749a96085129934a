"""Annotation: a budget per thousand exchanges, spent on what was kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.selection.annotation import Annotation, ask
from clients.selection.buffer import Item, Note
from fleettune.data.exchanges import Exchange


def items(*orders: int, asked: bool = False) -> tuple[Item, ...]:
    return tuple(
        Item(
            exchange=Exchange(question="q", response="r", day=0, order=order),
            note=Note(scores=(float(order),), asked=asked),
        )
        for order in orders
    )


def test_the_budget_by_hand() -> None:
    assert Annotation().left(10**6, 10**6) is None
    assert Annotation(per_1000=20).left(99, 1) == 0
    assert Annotation(per_1000=20).left(100, 1) == 1
    assert Annotation(per_1000=20).left(1000, 25) == 0


def test_the_newest_are_asked_about_first_and_once() -> None:
    answered, count = ask(items(1, 4, 6, 9), {4: True}, 2)
    assert count == 2
    assert {item.order: item.note.asked for item in answered} == {
        1: False,
        4: True,
        6: True,
        9: True,
    }
    assert [item.order for item in answered] == [1, 4, 6, 9]
    assert [item.note.scores for item in answered] == [(1.0,), (4.0,), (6.0,), (9.0,)]
    assert ask(answered, {item.order: item.note.asked for item in answered}, 0) == (answered, 0)


def test_without_a_budget_everything_kept_is_asked_about() -> None:
    answered, count = ask(items(1, 2, 3), {1: True}, None)
    assert count == 2
    assert all(item.note.asked for item in answered)


def test_a_selection_cannot_make_up_an_answer() -> None:
    answered, count = ask(items(1, 2, asked=True), {}, 0)
    assert count == 0
    assert not any(item.note.asked for item in answered)


@settings(derandomize=True)
@given(
    per_1000=st.floats(0, 1000),
    nights=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10)), max_size=10),
)
def test_no_stream_is_asked_about_more_than_its_budget(
    per_1000: float, nights: list[tuple[int, int]]
) -> None:
    seen = asked = order = 0
    for arrived, kept in nights:
        seen += arrived
        fresh = items(*range(order, order + min(arrived, kept)))
        order += arrived
        _, count = ask(fresh, {}, Annotation(per_1000=per_1000).left(seen, asked))
        asked += count
        assert asked <= per_1000 * seen / 1000


@pytest.mark.parametrize("value", [-1, 1001, float("nan")])
def test_a_budget_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"annotation.per_1000 must be null or from 0 to 1000"):
        Annotation(per_1000=value)
