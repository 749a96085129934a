"""Exchanges as tokens: template around the texts, cut to length, the stop token always learned."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.data.exchanges import Exchange
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import TEMPLATES, Encoder, Example, Template, make_encoder, open_encoder

USER, BOT, END = 1, 2, 3
TEMPLATE_NAMES = sorted(TEMPLATES)

texts = st.text(alphabet=string.printable, max_size=120) | st.text(max_size=40)


def said(question: str, response: str, order: int = 0) -> Exchange:
    return Exchange(question=question, response=response, day=0, order=order)


exchanges = st.builds(said, texts, texts)


def pocket(max_tokens: int) -> Encoder:
    return open_encoder(POCKET_V1_FOLDER, "pocket", max_tokens)


def test_an_example_is_the_prompt_and_the_answer_with_its_stop() -> None:
    encoder = pocket(64)
    found = encoder.example(said("set my alarm", "the bell is set for six."))
    question, answer = encoder.ids("set my alarm"), encoder.ids("the bell is set for six.")
    assert found == Example(tokens=(USER, *question, BOT, *answer, END), prompt=len(question) + 2)
    assert found.supervised == len(answer) + 1


def test_markup_of_the_pocket_template_is_one_token_each() -> None:
    encoder = pocket(64)
    assert (encoder.before, encoder.between, encoder.after) == ((USER,), (BOT,), (END,))


def test_a_marker_in_a_text_is_ordinary_text() -> None:
    encoder = pocket(64)
    said_so = said("what is <|end|> for?", "<|bot|> marks an answer, <|end|> ends it")
    found = encoder.example(said_so)
    assert [found.tokens.count(marker) for marker in (USER, BOT, END)] == [1, 1, 1]
    assert (found.tokens[0], found.tokens[found.prompt - 1], found.tokens[-1]) == (USER, BOT, END)
    assert encoder.text(encoder.ids(said_so.response)) == said_so.response
    prompt = encoder.request(said_so.question)
    assert encoder.conversation([said_so]) == list(found.tokens)
    assert (prompt.count(END), prompt[-1]) == (0, BOT)


def test_a_marker_that_is_no_special_token_of_the_tokenizer_is_one_here() -> None:
    tokenizer = Tokenizer.from_file(str(POCKET_V1_FOLDER / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(word, special=False) for word in ("<stop>", "<b>", "\n")])
    template = Template(before="", between="\n", after="<stop>", reword="")
    encoder = make_encoder(tokenizer, template, 64)
    (stop,) = encoder.after
    assert tokenizer.id_to_token(stop) == "<stop>"
    assert stop not in encoder.ids("a <stop> sign")
    # what the template does not use stays as it was, white space too
    assert tokenizer.token_to_id("<b>") in encoder.ids("in <b>bold")
    assert tokenizer.token_to_id("\n") in encoder.ids("two\nlines")


def test_the_worlds_exchanges_are_never_cut() -> None:
    encoder = pocket(64)
    for user in range(30):
        for exchange in SyntheticData().open().day(user, 0):
            found = encoder.example(exchange)
            text = encoder.tokenizer.decode(list(found.tokens), skip_special_tokens=False)
            expected = f"<|user|>{exchange.question}<|bot|>{exchange.response}<|end|>"
            assert text == expected


def markup(template: str) -> list[int]:
    """Tokens of a template's three texts in the pocket tokenizer."""
    around = open_encoder(POCKET_V1_FOLDER, template, 999)
    return [len(around.before), len(around.between), len(around.after)]


def least(template: str) -> int:
    """Half of an example goes to the answer; the other holds the markup and one more token."""
    return 2 * sum(markup(template)) + 1


@settings(derandomize=True, deadline=None)
@given(
    exchanges, st.lists(exchanges, max_size=4), st.integers(0, 60), st.sampled_from(TEMPLATE_NAMES)
)
def test_an_example_never_exceeds_its_length_and_keeps_its_stop(
    exchange: Exchange, context: list[Exchange], extra: int, template: str
) -> None:
    max_tokens = least(template) + extra
    encoder = open_encoder(POCKET_V1_FOLDER, template, max_tokens)
    found = encoder.example(exchange, context)
    before, stop = encoder.before, encoder.after
    assert len(found.tokens) <= max_tokens
    assert found.tokens[: len(before)] == before
    assert found.tokens[-len(stop) :] == stop
    assert len(stop) <= found.supervised <= max_tokens // 2 + len(stop)


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_a_length_without_room_for_a_question_is_refused(template: str) -> None:
    shortest = open_encoder(POCKET_V1_FOLDER, template, least(template))
    found = shortest.example(said("alarm " * 90, "six " * 90))
    assert len(found.tokens) == least(template)
    assert found.prompt == sum(markup(template)[:2]) + 1
    with pytest.raises(ValueError, match=rf"model\.max_tokens must be >= {least(template)} tokens"):
        open_encoder(POCKET_V1_FOLDER, template, least(template) - 1)


def test_a_long_question_loses_its_end_by_hand() -> None:
    # 12 tokens: markup 3, answer 3 (s, i, x), so the question keeps 6.
    encoder = pocket(12)
    question = "what is on my work list and when do i leave?"
    assert len(encoder.ids("six")) == 3
    assert len(encoder.ids(question)) > 6
    found = encoder.example(said(question, "six"))
    assert found.tokens == (USER, *encoder.ids(question)[:6], BOT, *encoder.ids("six"), END)
    assert len(found.tokens) == 12


def test_a_long_answer_keeps_half_of_the_room_and_its_stop() -> None:
    encoder = pocket(20)
    answer = "with pleasure, dear Ana, a good nutrition option is sushi with coffee at six"
    found = encoder.example(said("hi", answer))
    assert found.tokens[found.prompt :] == (*encoder.ids(answer)[:10], END)


CONTEXT = [said(f"what about {n}?", f"answer {n}.", order=n) for n in range(4)]


def test_context_stands_before_the_question_in_time_order() -> None:
    encoder = pocket(200)
    found = encoder.example(said("set my alarm", "six"), CONTEXT)
    alone = encoder.example(said("set my alarm", "six"))
    turns = [token for turn in CONTEXT for token in encoder.example(turn).tokens]
    assert found.tokens == (*turns, *alone.tokens)
    # Only the last answer is supervised.
    assert found.supervised == alone.supervised


def test_too_long_a_context_drops_its_oldest_exchanges_first() -> None:
    plain = pocket(200)
    alone = plain.example(said("set my alarm", "six"))
    sizes = [len(plain.example(turn).tokens) for turn in CONTEXT]
    for kept in range(len(CONTEXT) + 1):
        newest = CONTEXT[len(CONTEXT) - kept :]
        room = len(alone.tokens) + sum(sizes[len(CONTEXT) - kept :])
        expected = plain.example(said("set my alarm", "six"), newest)
        assert pocket(room).example(said("set my alarm", "six"), CONTEXT) == expected
        if kept:  # one token less drops exactly one exchange more
            shorter = plain.example(said("set my alarm", "six"), newest[1:])
            assert pocket(room - 1).example(said("set my alarm", "six"), CONTEXT) == shorter


@settings(derandomize=True, deadline=None)
@given(st.lists(exchanges, max_size=5), st.integers(16, 120))
def test_context_is_a_run_of_the_newest_exchanges(context: list[Exchange], room: int) -> None:
    encoder, endless = (pocket(n) for n in (room, 9999))
    question = said("hi", "six")
    found = encoder.example(question, context)
    runs = [endless.example(question, context[start:]) for start in range(len(context) + 1)]
    assert found in runs


def test_a_conversation_is_its_exchanges_one_after_the_other() -> None:
    encoder = pocket(200)
    turns = [token for turn in CONTEXT for token in encoder.example(turn).tokens]
    assert encoder.conversation(CONTEXT) == turns


def test_encoders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no tokenizer\.json"):
        open_encoder(tmp_path, "pocket", 64)
    with pytest.raises(ValueError, match=r"model\.template must be one of .*, got 'llama'"):
        open_encoder(POCKET_V1_FOLDER, "llama", 64)


def test_a_damaged_tokenizer_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        open_encoder(tmp_path, "pocket", 64)


def test_a_tokenizer_that_drops_the_end_of_an_answer_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"u": 0}, []))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"drops '<\|end\|>', with which"):
        open_encoder(tmp_path, "pocket", 64)


def test_a_tokenizer_that_fails_at_an_unknown_word_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"user": 0}, unk_token="?"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"cannot be read as a tokenizer \(WordLevel error"):
        open_encoder(tmp_path, "pocket", 64)
