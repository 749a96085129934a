"""Decomposition of a style vector into the directions of words.

Source: XPerT's Algorithm 1, docs/methods.md#decomposition.

Candidates are taken in order. One is accepted unless the absolute cosine with an accepted word is
too large. What is left of it after the accepted ones are subtracted (Gram-Schmidt, twice, for
rounding) becomes its direction. Coordinates are ``z = <V, v̂>``, so the residual falls with every
word, and the coordinates of a vector do not depend on words that come later. It ends when every
target is explained up to a share of its norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NOTHING_LEFT = 1e-3
"""Share of a candidate's norm below which what is left of it is rounding or noise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A word with the direction in which answers move when they are worded so.

    Attributes:
        word: What more of it is called.
        opposite: What less of it is called.
        vector: Its direction, ``(d,)``, of any norm.
    """

    word: str
    opposite: str
    vector: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """Accepted words with their orthonormal directions.

    Attributes:
        words: What more of each direction is called.
        opposites: What less of it is called.
        vectors: ``(words, d)``, rows of norm 1, each orthogonal to the others.
    """

    words: tuple[str, ...]
    opposites: tuple[str, ...]
    vectors: Floats

    def __post_init__(self) -> None:
        if not len(self.words) == len(self.opposites) == len(self.vectors):
            raise ValueError(
                "a basis must have a word, an opposite and a vector per direction, got "
                f"{len(self.words)}, {len(self.opposites)} and {len(self.vectors)}"
            )

    def coordinates(self, vectors: Floats) -> Floats:
        """Returns the coordinates of vectors ``(..., d)`` as ``(..., words)``."""
        return vectors @ self.vectors.T


class WordlessError(ValueError):
    """No word tells what was to be explained from the unpersonalised model."""


def decompose(
    candidates: Sequence[Candidate], targets: Floats, *, gate: float, residual: float
) -> Basis:
    """Returns the basis of words that explains the targets, shared by all of them.

    Args:
        candidates: In the order in which they are tried.
        targets: ``(targets, d)``, the vectors to explain.
        gate: Largest |cos| of a candidate with an accepted one, > 0 and <= 1.
        residual: Ends when no target has a larger share of its norm left, 0 to 1.

    Raises:
        ValueError: If a threshold is no share, or shapes do not fit.
        WordlessError: If no candidate has a direction, or there is nothing to explain.
    """
    _check(candidates, targets, gate, residual)
    accepted: list[tuple[Candidate, Floats]] = []
    left = targets.astype(np.float64)
    norms = np.linalg.norm(left, axis=1)
    for candidate in candidates:
        if np.all(np.linalg.norm(left, axis=1) <= residual * norms):
            break
        direction = _new_direction(candidate, accepted, gate)
        if direction is None:
            continue
        accepted.append((candidate, direction))
        left = left - np.outer(left @ direction, direction)
    if not accepted:
        raise WordlessError("a decomposition needs a candidate with a direction, got none")
    return Basis(
        words=tuple(candidate.word for candidate, _ in accepted),
        opposites=tuple(candidate.opposite for candidate, _ in accepted),
        vectors=np.stack([direction for _, direction in accepted]),
    )


def sort_by_strength(candidates: Sequence[Candidate], targets: Floats) -> tuple[Candidate, ...]:
    """Returns candidates by how much of the targets' spread lies along them, largest first.

    Stands for the order in which a summariser proposes words, where it is too weak to propose any.
    """
    spread = targets - targets.mean(axis=0)

    def strength(candidate: Candidate) -> float:
        norm = float(np.linalg.norm(candidate.vector))
        if norm == 0:
            return 0.0
        return float(np.linalg.norm(spread @ candidate.vector)) / norm

    return tuple(sorted(candidates, key=strength, reverse=True))


def cosine(one: Floats, other: Floats) -> float:
    """Returns the cosine of two vectors; 0 where one of them is zero."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms > 0 else 0.0


def _new_direction(
    candidate: Candidate, accepted: Sequence[tuple[Candidate, Floats]], gate: float
) -> Floats | None:
    """Returns what is new in a candidate as a vector of norm 1; None if that is too little."""
    norm = float(np.linalg.norm(candidate.vector))
    if norm == 0:
        return None
    if any(abs(cosine(candidate.vector, earlier.vector)) > gate for earlier, _ in accepted):
        return None
    rest = candidate.vector.astype(np.float64) / norm
    for _ in range(2):
        for _, direction in accepted:
            rest = rest - (rest @ direction) * direction
    left = float(np.linalg.norm(rest))
    return None if left < _NOTHING_LEFT else rest / left


def _check(candidates: Sequence[Candidate], targets: Floats, gate: float, residual: float) -> None:
    if not 0 < gate <= 1:
        raise ValueError(f"explanation.gate must be a |cos| > 0 and <= 1, got {gate}")
    if not 0 <= residual < 1:
        raise ValueError(f"explanation.residual must be a share >= 0 and < 1, got {residual}")
    if targets.ndim != 2 or not targets.size:
        raise ValueError(f"targets must be (targets, d), got shape {targets.shape}")
    wrong = [c.word for c in candidates if c.vector.shape != targets.shape[1:]]
    if wrong:
        raise ValueError(
            f"candidates must have vectors of {targets.shape[1]} entries, as the targets; "
            f"{wrong[0]!r} does not"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One word of an explanation.

    Attributes:
        word: The word, or its opposite where there is less of it.
        amount: How much, > 0, in the coordinates' unit.
    """

    word: str
    amount: float


def describe(
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


def format_terms(terms: Sequence[Term], count: int = 3) -> str:
    """Returns an explanation to read: ``terse 0.8, technical 0.3``."""
    return ", ".join(f"{term.word} {term.amount:.2g}" for term in terms[:count])
