"""Likeness of questions, by hand."""

from __future__ import annotations

from fleettune.catalogue.similar_questions import most_similar, most_similar_others

QUESTIONS = ("wake me at six", "what do I drink", "wake me at seven", "drink or not?")


def test_questions_that_share_words_come_first_and_the_first_of_equals() -> None:
    assert most_similar("Wake me at eight!", QUESTIONS, 2) == (0, 2)
    assert most_similar("sing", QUESTIONS, 2) == (0, 1)
    assert most_similar("sing", QUESTIONS[:1]) == (0,)


def test_a_question_is_not_like_itself_unless_it_is_alone() -> None:
    assert most_similar_others(QUESTIONS, 1) == ((2,), (3,), (0,), (1,))
    assert most_similar_others(("one",)) == ((0,),)
