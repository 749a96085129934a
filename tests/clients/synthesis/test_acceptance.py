"""Acceptance of synthetic pairs: word overlap, lengths and characters, copies, bytes; by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.synthesis.acceptance import Band, Draft, accept_drafts, plausible, rouge_1
from fleettune.data.exchanges import Exchange

ANY = Band(low=0.0, high=1.0)
OLD = Exchange(question="plan my trip", response="by train", day=2, order=7, domain="travel")


def draft(question: str, response: str = "by train", original: Exchange = OLD) -> Draft:
    return Draft(original=original, question=question, response=response)


def taken(*drafts: Draft, room: int = 10_000, band: Band = ANY) -> list[str]:
    return [pair.question for pair in accept_drafts(drafts, [OLD], room, band)]


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("The cat, SAT!", "the cat sat", 1.0),  # case and punctuation do not count
        ("the cat sat", "the cat ran", 2 * 2 / 6),
        ("the the the", "the cat", 2 * 1 / 5),  # "the" is shared once
        ("a b c d", "a", 2 * 1 / 5),
        ("one two", "three four", 0.0),
        ("", "three four", 0.0),
        ("?!", "...", 0.0),
    ],
)
def test_rouge_1_counts_shared_words(text: str, reference: str, f1: float) -> None:
    assert rouge_1(text, reference) == pytest.approx(f1)


@given(st.text(max_size=40), st.text(max_size=40))
def test_rouge_1_is_a_symmetric_share(first: str, second: str) -> None:
    assert rouge_1(first, second) == rouge_1(second, first)
    assert 0 <= rouge_1(first, second) <= 1


@pytest.mark.parametrize(
    ("text", "original", "sound"),
    [
        ("go by bus", "take a bus", True),
        ("", "take a bus", False),
        ("  \n", "take a bus", False),
        (" ", "", True),  # a question may be empty, and stays so
        ("take a bus", "", False),
        ("abc", "abcdefghi", True),  # a third as long
        ("ab", "abcdefghi", False),
        ("abcdefghi", "abc", True),  # three times as long
        ("abcdefghij", "abc", False),
        ("two\nlines", "one line", True),
        ("bell \a rings", "bell rings", False),
        ("caf\N{REPLACEMENT CHARACTER} open", "cafe open", False),
        ("......bus", "take a bus", False),  # 3 of 9 are letters
        ("1 + 1 = 3", "2 + 2 = 4", True),  # the original has none either
        ("am Zug", "im Bus", True),
        ("公交车", "坐火车", True),
    ],
)
def test_a_text_is_judged_by_length_and_characters(text: str, original: str, sound: bool) -> None:
    assert plausible(text, original) is sound


def test_both_ends_of_the_band_are_accepted_and_nothing_beyond() -> None:
    # Shared words of three: 2/3, 1/3, 0 and all of them, in another order.
    drafts = [draft(q) for q in ("plan my day", "plan a day", "book a day", "my trip plan")]
    assert taken(*drafts, band=Band(low=1 / 3, high=2 / 3)) == ["plan my day", "plan a day"]
    assert taken(*drafts, band=Band(low=0.0, high=0.3)) == ["book a day"]
    assert taken(*drafts, band=Band(low=0.9, high=1.0)) == ["my trip plan"]


def test_where_the_answer_is_new_the_band_is_on_the_whole_pair() -> None:
    # Old pair: plan my trip by train. Shared: plan, by; 2 * 2 / (5 + 5).
    new = draft("plan a day", "by bicycle")
    assert taken(new, band=Band(low=0.39, high=0.41)) == ["plan a day"]
    # The same question with the answer kept shares 1 of 3 words.
    kept = draft("plan a day")
    assert taken(kept, band=Band(low=0.39, high=0.41)) == []


def test_copies_are_dropped_but_for_the_first_one() -> None:
    assert taken(draft("Plan  my TRIP")) == []
    assert taken(draft("plan a trip"), draft("plan a  Trip")) == ["plan a trip"]
    assert len(taken(draft("plan a trip"), draft("plan a trip", "by bus"))) == 2


@pytest.mark.parametrize(("question", "response"), [("", "by train"), ("plan a trip", " ")])
def test_a_pair_needs_both_question_and_answer(question: str, response: str) -> None:
    assert taken(draft(question, response)) == []


def test_an_exchange_without_a_question_may_get_another_answer() -> None:
    # a text that goes on from nothing: shared words of the whole pair 3 of 4
    alone = Exchange(question="", response="we took the train", day=0, order=0)
    new = draft("", "we took the bus", alone)
    assert taken(new, band=Band(low=0.7, high=0.8)) == [""]
    assert taken(draft("what now", "we took the bus", alone)) == []


def test_an_answer_outside_a_closed_set_is_dropped() -> None:
    drafts = [draft("plan a trip", "by train"), draft("plan a trip", "by bus")]
    pairs = accept_drafts(drafts, [OLD], 10_000, ANY, frozenset({"by train", "on foot"}))
    assert [pair.response for pair in pairs] == ["by train"]


def test_a_pair_keeps_the_place_of_its_original() -> None:
    (pair,) = accept_drafts([draft("plan a trip")], [OLD], 10_000, ANY)
    assert (pair.day, pair.order, pair.domain) == (2, 7, "travel")


def test_what_does_not_fit_is_passed_over_and_smaller_pairs_still_fit() -> None:
    # 11 + 8, 18 + 8 and 9 + 8 bytes.
    drafts = [draft("plan a trip"), draft("plan my longer way"), draft("plan trip")]
    assert taken(*drafts, room=19 + 17) == ["plan a trip", "plan trip"]
    assert taken(*drafts, room=18) == ["plan trip"]
    assert taken(*drafts, room=-5) == []


texts = st.text(st.sampled_from("ab c"), max_size=8)


@given(
    held=st.lists(st.tuples(texts, texts), min_size=1, max_size=4),
    made=st.lists(st.tuples(st.integers(0, 3), texts, texts), max_size=8),
    room=st.integers(-3, 60),
)
def test_accepted_pairs_fit_and_repeat_nothing(
    held: list[tuple[str, str]], made: list[tuple[int, str, str]], room: int
) -> None:
    buffer = [
        Exchange(question=question, response=response, day=0, order=order)
        for order, (question, response) in enumerate(held)
    ]
    drafts = [draft(q, r, buffer[place % len(buffer)]) for place, q, r in made]
    pairs = accept_drafts(drafts, buffer, room, ANY)
    assert sum(pair.size_bytes for pair in pairs) <= max(room, 0)
    assert set(pairs) <= {one.exchange for one in drafts}
    assert len({(p.question, p.response) for p in (*buffer, *pairs)}) == len(pairs) + len(
        {(e.question, e.response) for e in buffer}
    )


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.5), (0.5, 1.1), (0.6, 0.5)])
def test_a_band_must_be_ordered_shares(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="rouge_low and rouge_high must be shares"):
        Band(low=low, high=high)
