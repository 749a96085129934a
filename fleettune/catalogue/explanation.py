"""Explanation: a style in words with numbers, and how far two of them are apart.

Coordinates stand for words (`fleettune.catalogue.decomposition.Basis`). `Published` is XPerT's
distance, L1 between coordinates (docs/methods.md#distances-between-styles). `Relative` is L1
between coordinates from the catalogue's mean,
each scaled to a sum of 1: a user of whom half the exchanges are in other styles lies half way
between an entry and the mean, and the published distance then prefers entries near the mean.
`Cosine` leaves the length out altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from fleettune.catalogue.decomposition import Floats


@runtime_checkable
class Distance(Protocol):
    """How far coordinates are from those of every entry."""

    def to(self, point: Floats, entries: Floats) -> Floats:
        """Returns the distances of ``(words,)`` to ``(entries, words)``, ``(entries,)``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """L1 between coordinates, in their own unit."""

    def to(self, point: Floats, entries: Floats) -> Floats:
        """Returns the distances."""
        return np.abs(entries - point).sum(axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """L1 between coordinates from the entries' mean, each scaled to a sum of 1: from 0 to 2."""

    def to(self, point: Floats, entries: Floats) -> Floats:
        """Returns the distances; 2, the largest, to an entry at the mean or from there."""
        middle = entries.mean(axis=0)
        ours, theirs = point - middle, entries - middle
        size, sizes = np.abs(ours).sum(), np.abs(theirs).sum(axis=1)
        if size == 0:
            return np.full(len(entries), 2.0)
        scaled = theirs / np.where(sizes > 0, sizes, 1.0)[:, None]
        return np.where(sizes > 0, np.abs(scaled - ours / size).sum(axis=1), 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """1 minus the cosine of coordinates from the entries' mean: from 0 to 2."""

    def to(self, point: Floats, entries: Floats) -> Floats:
        """Returns the distances; 2, the largest, to an entry at the mean or from there."""
        middle = entries.mean(axis=0)
        ours, theirs = point - middle, entries - middle
        sizes = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours)
        cosines = theirs @ ours / np.where(sizes > 0, sizes, 1.0)
        return np.where(sizes > 0, 1.0 - cosines, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One word of an explanation.

    Attributes:
        word: The word, or its opposite where there is less of it.
        amount: How much, > 0, in the coordinates' unit.
    """

    word: str
    amount: float


def explained(
    words: Sequence[str], opposites: Sequence[str], coordinates: Floats, middle: Floats
) -> tuple[Term, ...]:
    """Returns what tells a style from the middle of its catalogue, the strongest word first.

    Args:
        words: What more of each coordinate is called.
        opposites: What less of it is called.
        coordinates: The style, ``(words,)``.
        middle: What it is compared with, ``(words,)``; zeros for the unpersonalised model.
    """
    away = coordinates - middle
    order: list[int] = np.argsort(-np.abs(away), kind="stable").tolist()
    return tuple(
        Term(
            word=words[place] if away[place] > 0 else opposites[place],
            amount=float(abs(away[place])),
        )
        for place in order
        if away[place] != 0
    )


def in_words(terms: Sequence[Term], count: int = 3) -> str:
    """Returns an explanation to read: ``terse 0.8, technical 0.3``."""
    return ", ".join(f"{term.word} {term.amount:.2g}" for term in terms[:count])
