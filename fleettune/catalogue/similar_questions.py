"""Likeness of questions: which of a catalogue's questions is most like one of a user's.

By the share of words that two questions have in common (Jaccard 1901): no model reads anything, so
a device that compares its user's answers with the plain answers to like questions decodes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LIKE = 3
"""Plain answers that stand for the release's own to one question."""


def most_similar(question: str, others: Sequence[str], count: int = LIKE) -> tuple[int, ...]:
    """Returns the places of the questions that share most words, the first one of equals first.

    Args:
        question: What is compared.
        others: With these.
        count: How many; fewer where there are fewer.
    """
    own = _words(question)
    order = sorted(range(len(others)), key=lambda place: -_shared(own, _words(others[place])))
    return tuple(order[:count])


def most_similar_others(questions: Sequence[str], count: int = LIKE) -> tuple[tuple[int, ...], ...]:
    """Returns `most_similar` of every question among all the others; itself where it is alone."""
    found: list[tuple[int, ...]] = []
    for place, question in enumerate(questions):
        order = most_similar(question, questions, count + 1)
        found.append(tuple(one for one in order if one != place)[:count] or (place,))
    return tuple(found)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]+", text.lower()))


def _shared(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(len(one | other), 1)
