"""Copying answers: which stored exchange is near, and what an edited answer says."""

from __future__ import annotations

import pytest

from clients.adaptation.copying import CopyNearest, edit_answer, nearest_by_words
from fleettune.data.exchanges import Exchange


def exchange(question: str, response: str, order: int = 0) -> Exchange:
    return Exchange(question=question, response=response, day=0, order=order)


HELD = (
    exchange("tell anna to buy 3 milk", "hi anna, get milk, 3!"),
    exchange("tell ben to buy 4 eggs", "hi ben, get eggs, 4!"),
    exchange("how do i feel?", "blue"),
)


def test_the_nearest_exchange_shares_most_words_and_is_the_newest_of_equals() -> None:
    assert nearest_by_words(HELD, "how do i feel today?") == HELD[2]
    assert nearest_by_words(HELD, "tell anna to buy 3 eggs") == HELD[0]  # 5 of 7 against 4 of 8
    assert nearest_by_words(HELD, "tell carla to buy 7 plates") == HELD[1]
    assert nearest_by_words(HELD, "") == HELD[2]


def test_an_edited_answer_has_the_new_words_where_the_old_ones_stood() -> None:
    told = edit_answer(HELD[1], "tell carla to buy 7 plates")
    assert told == "hi carla, get plates, 7!"
    assert edit_answer(HELD[2], "how do i feel?") == "blue"
    # two words in place of one are no pair, so the old word stays
    assert edit_answer(HELD[1], "tell ben to buy 4 brown eggs") == "hi ben, get eggs, 4!"


def test_the_rule_copies_edits_and_says_nothing_where_it_holds_nothing() -> None:
    plain = CopyNearest(nearest="words", edit=False)
    edits = CopyNearest(nearest="words", edit=True)
    assert plain.copy_answer(HELD, "tell carla to buy 7 plates") == "hi ben, get eggs, 4!"
    assert edits.copy_answer(HELD, "tell carla to buy 7 plates") == "hi carla, get plates, 7!"
    assert plain.copy_answer((), "who?") == ""
    assert plain.traits.neighbours == 0
    assert CopyNearest(nearest="embedding", edit=False).traits.neighbours == 1


def test_nearness_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="nearest must be words or embedding, got 'tf-idf'"):
        CopyNearest(nearest="tf-idf", edit=False)
