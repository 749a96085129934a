"""Style words: a list of adjectives, each with a measure that any text has.

For summarisers that are too weak to propose words. The list knows nothing of any generator: a word
is what a text shows, its direction is found from answers of the unpersonalised model that show
much or little of it (`strategies.catalogue.candidate_words`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_LONG_WORD = 8
_PREPOSITION_WORDS = """
about after at before by during for from in into near of on over through to under until with without
"""
_PREPOSITIONS = frozenset(_PREPOSITION_WORDS.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleWord:
    """An adjective with its opposite and how much of it a text shows.

    Attributes:
        word: The adjective.
        opposite: What a text with little of it is called.
        measure: A number per text, in a unit of its own.
    """

    word: str
    opposite: str
    measure: Callable[[str], float]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)


def _mean_length(text: str) -> float:
    return float(np.mean([len(word) for word in _words(text)] or [0]))


def _of(text: str, chosen: frozenset[str]) -> float:
    return float(sum(word.lower() in chosen for word in _words(text)))


STYLE_WORDS: tuple[StyleWord, ...] = (
    StyleWord(word="lengthy", opposite="terse", measure=lambda text: len(_words(text))),
    StyleWord(word="emphatic", opposite="flat", measure=lambda text: text.count("!")),
    StyleWord(word="pausing", opposite="unbroken", measure=lambda text: text.count(",")),
    StyleWord(
        word="segmented",
        opposite="single-sentenced",
        measure=lambda text: len(re.findall(r"[.!?]+", text)),
    ),
    StyleWord(word="long-worded", opposite="short-worded", measure=_mean_length),
    StyleWord(
        word="learned",
        opposite="simple",
        measure=lambda text: sum(len(word) >= _LONG_WORD for word in _words(text)),
    ),
    StyleWord(
        word="naming",
        opposite="nameless",
        measure=lambda text: sum(word[0].isupper() for word in _words(text)),
    ),
    StyleWord(
        word="circumstantial", opposite="bare", measure=lambda text: _of(text, _PREPOSITIONS)
    ),
    StyleWord(
        word="direct",
        opposite="impersonal",
        measure=lambda text: _of(text, frozenset(("you", "your", "yours"))),
    ),
    StyleWord(
        word="definite",
        opposite="indefinite",
        measure=lambda text: _of(text, frozenset(("the",))) - _of(text, frozenset(("a", "an"))),
    ),
    StyleWord(
        word="adding", opposite="unadorned", measure=lambda text: _of(text, frozenset(("and",)))
    ),
)
