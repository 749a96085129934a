"""Acceptance: which synthetic pairs a device trains on, checked without a model.

The band on ROUGE-1 is the sanity check of Qin et al. (DAC 2024,
docs/methods.md#acceptance-by-rouge-1). It sees words, not
meaning: a good paraphrase that shares no word with the original falls below it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from fleettune.data.exchanges import Exchange

LENGTH_RATIO = 3.0
"""A new text is at most this many times as long as the old one, and at least its reciprocal."""
LETTERS_KEPT = 0.5
"""Least share of letters in a new text, as a share of the old text's."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A synthetic pair that nobody has checked yet.

    Attributes:
        original: The exchange that it was made from.
        question: The new question.
        response: The new answer.
    """

    original: Exchange
    question: str
    response: str

    @property
    def exchange(self) -> Exchange:
        """The pair as an exchange; day, order and domain are those of the original."""
        old = self.original
        return Exchange(
            question=self.question,
            response=self.response,
            day=old.day,
            order=old.order,
            domain=old.domain,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """How alike old and new text may be, as ROUGE-1 F1 from 0 to 1; both ends are accepted.

    Raises:
        ValueError: If the ends are not ordered shares.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                "rouge_low and rouge_high must be shares from 0 to 1 in this order, got "
                f"{self.low} and {self.high}"
            )


def rouge_1(text: str, reference: str) -> float:
    """Returns the F1 of the lower-cased words that two texts share, each as often as in both.

    Source: Lin 2004, ROUGE, aclanthology.org/W04-1013, without stemming. 0 if a text has no word.
    """
    ours, theirs = (Counter(_WORD.findall(one.lower())) for one in (text, reference))
    words = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / words if words else 0.0


def plausible(text: str, original: str) -> bool:
    """Returns whether a text could be a rewording by its length and its characters alone.

    Of an empty text, as a question may be, only the empty one is a rewording.
    """
    size, before = len(text.strip()), len(original.strip())
    if not size or not before:
        return size == before
    if "\N{REPLACEMENT CHARACTER}" in text:
        return False
    if not all(char.isprintable() or char.isspace() for char in text):
        return False
    if not before <= LENGTH_RATIO * size <= LENGTH_RATIO**2 * before:
        return False
    return _letters(text) >= LETTERS_KEPT * _letters(original)


def accept_drafts(
    drafts: Iterable[Draft],
    buffer: Iterable[Exchange],
    room_bytes: int,
    band: Band,
    answers: AbstractSet[str] = frozenset(),
) -> tuple[Exchange, ...]:
    """Returns the drafts to train on, in their order.

    Args:
        drafts: Pairs made from the buffer.
        buffer: Exchanges held; a draft that repeats one of them or an earlier draft is dropped.
        room_bytes: Bytes that all accepted pairs together may take.
        band: ROUGE-1 of what was reworded: the question, and the answer unless it was kept.
        answers: The closed set of answers; empty where answers are free text.
    """
    known = {_key(exchange) for exchange in buffer}
    kept: list[Exchange] = []
    for draft in drafts:
        pair = draft.exchange
        if _key(pair) in known or not _passes(draft, band, answers):
            continue
        if pair.size_bytes <= room_bytes:
            known.add(_key(pair))
            kept.append(pair)
            room_bytes -= pair.size_bytes
    return tuple(kept)


def _passes(draft: Draft, band: Band, answers: AbstractSet[str]) -> bool:
    old = draft.original
    if answers and draft.response not in answers:
        return False
    if not plausible(draft.question, old.question) or not plausible(draft.response, old.response):
        return False
    before, after = old.question, draft.question
    if draft.response != old.response:
        before, after = f"{before} {old.response}", f"{after} {draft.response}"
    return band.low <= rouge_1(after, before) <= band.high


def _letters(text: str) -> float:
    """Returns the share of letters among the characters that are no space."""
    solid = [char for char in text if not char.isspace()]
    return sum(char.isalpha() for char in solid) / len(solid) if solid else 0.0


def _key(exchange: Exchange) -> tuple[str, str]:
    """Returns what makes two exchanges the same: their words but for case and spacing."""
    question, response = (
        " ".join(text.casefold().split()) for text in (exchange.question, exchange.response)
    )
    return question, response
