"""Rewording by rule: another opening, another ending, other words for a few common ones.

English only; a text of another language gets the openings and endings at most.
"""

from __future__ import annotations

import re

import numpy as np

OPENINGS = ("", "quick question: ", "one more thing: ", "tell me this: ", "say, ", "by the way, ")
ENDINGS = ("", " please", " if you can", " right now", " once more")
SWAPS = {
    "answer": "reply to",
    "any": "some",
    "book": "reserve",
    "buy": "purchase",
    "can": "could",
    "change": "alter",
    "find": "look up",
    "get": "fetch",
    "help": "assist",
    "make": "prepare",
    "meeting": "appointment",
    "need": "require",
    "pick": "choose",
    "plan": "arrange",
    "should": "ought to",
    "show": "list",
    "tonight": "this evening",
    "want": "wish",
    "what": "what exactly",
    "when": "at what time",
    "write": "draft",
}
"""Words of requests, and what may stand for them; every pair is our own choice."""
SWAP_SHARE = 0.5
_WORD = re.compile(r"\b(" + "|".join(SWAPS) + r")\b", re.IGNORECASE)


def reword(question: str, rng: np.random.Generator) -> str:
    """Returns a question in other words, as the generator draws them."""
    opening = OPENINGS[int(rng.integers(len(OPENINGS)))]
    ending = ENDINGS[int(rng.integers(len(ENDINGS)))]

    def other(found: re.Match[str]) -> str:
        word = found.group()
        return SWAPS[word.lower()] if rng.random() < SWAP_SHARE else word

    body = _WORD.sub(other, question.strip())
    mark = body[-1:] if body[-1:] in "?!." else ""
    return opening + body.removesuffix(mark) + ending + mark
