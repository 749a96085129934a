"""XPerT's decomposition as its diffusion code was released (explain_diffusion.py@dfbabd6).

Kept beside `fleettune.catalogue.decomposition` so that what its three faults do can be shown
(docs/methods.md#decomposition-released);
`catalogue.explain.decomposition=released` explains a whole catalogue so:
``z = <V, v> / |v|`` multiplies ``v`` itself, not ``v / |v|``; the residual subtracts the sum of all
entries of all products, one number for every entry of V; and the gate sums signed cosines, so that
a word against accepted ones always passes. The code for language models was never released.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleettune.catalogue.decomposition import Basis, Candidate, Floats, WordlessError, cosine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReleasedDecomposition:
    """What the released code finds for one vector.

    Attributes:
        words: Accepted words, in order.
        vectors: Their vectors as given, ``(words, d)``: neither of norm 1 nor orthogonal.
        coordinates: ``(words,)``.
        residuals: The released residual after each word, ``(words,)``; it may grow.
    """

    words: tuple[str, ...]
    vectors: Floats
    coordinates: Floats
    residuals: Floats


def decompose_released(
    candidates: Sequence[Candidate],
    target: Floats,
    *,
    orthogonal: float = 1.0,
    residual: float = 0.0,
) -> ReleasedDecomposition:
    """Returns the released decomposition of one vector.

    Args:
        candidates: In the order in which they are tried.
        target: The vector, ``(d,)``.
        orthogonal: Accepts a word while the sum of its cosines with accepted ones is below this.
        residual: Ends when the released residual's norm is below this.

    Raises:
        ValueError: If no candidate is given.
    """
    if not candidates:
        raise ValueError("a decomposition needs a candidate with a direction, got none")
    accepted: list[Candidate] = []
    coordinates: list[float] = []
    residuals: list[float] = []
    for candidate in candidates:
        if not _passes(candidate, accepted, orthogonal):
            continue
        norm = float(np.linalg.norm(candidate.vector))
        accepted.append(candidate)
        coordinates.append(float(target @ candidate.vector) / norm)
        products = [z * word.vector for z, word in zip(coordinates, accepted, strict=True)]
        # torch.sum(torch.stack(...)) has no dimension: one number, subtracted from every entry
        residuals.append(float(np.linalg.norm(target - np.sum(np.stack(products)))))
        if residuals[-1] < residual:
            break
    return ReleasedDecomposition(
        words=tuple(candidate.word for candidate in accepted),
        vectors=np.stack([candidate.vector for candidate in accepted]),
        coordinates=np.array(coordinates),
        residuals=np.array(residuals),
    )


def released_basis(
    candidates: Sequence[Candidate], targets: Floats, *, orthogonal: float = 1.0
) -> Basis:
    """Returns the words that the released code accepts, shared by all vectors to explain.

    Without a residual to stop at, as released, it accepts the same words for every vector. They
    keep their directions, so that coordinates are its ``<V, v> / |v|``; a word without a direction
    is left out, where it would divide by zero.

    Args:
        candidates: In the order in which they are tried.
        targets: ``(targets, d)``, the vectors to explain.
        orthogonal: As `decompose_released`.

    Raises:
        WordlessError: If no candidate has a direction, or there is nothing to explain.
    """
    accepted: list[Candidate] = []
    for candidate in candidates:
        if candidate.vector.any() and _passes(candidate, accepted, orthogonal):
            accepted.append(candidate)
    if not accepted or not targets.any():
        raise WordlessError("a decomposition needs a candidate with a direction, got none")
    vectors = np.stack([candidate.vector for candidate in accepted])
    return Basis(
        words=tuple(candidate.word for candidate in accepted),
        opposites=tuple(candidate.opposite for candidate in accepted),
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )


def _passes(candidate: Candidate, accepted: Sequence[Candidate], orthogonal: float) -> bool:
    """Returns whether the sum of signed cosines with accepted words lets one pass."""
    total = sum(cosine(earlier.vector, candidate.vector) for earlier in accepted)
    return not accepted or total < orthogonal
