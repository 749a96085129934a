"""Comparing: how far a style is from every entry, along words and along what words leave.

Words explain part of how entries differ. The rest lies along directions that no word names; the
largest of them are kept for comparing, never for explaining. A coordinate counts for less the more
it varies among one entry's own answers, which a server knows without any user: the within-class
covariance of linear discriminant analysis, shrunk towards a multiple of the identity.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from fleettune.catalogue.decomposition import Basis, Floats


def cosine_distances(point: Floats, entries: Floats) -> Floats:
    """Returns 1 minus the cosine of coordinates from the entries' mean, ``(entries,)``: 0 to 2.

    XPerT's distance is L1 between coordinates. A user of whom half the exchanges are in other
    styles lies half way between an entry and the mean, and L1 then prefers entries near the mean;
    the cosine leaves the length out (docs/LOG.md).

    Args:
        point: ``(words,)``.
        entries: ``(entries, words)``; one at the mean, and every one from there, is at 2.
    """
    middle = entries.mean(axis=0)
    ours, theirs = point - middle, entries - middle
    sizes = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours)
    cosines = theirs @ ours / np.where(sizes > 0, sizes, 1.0)
    return np.where(sizes > 0, 1.0 - cosines, 2.0)


def unnamed_directions(basis: Basis, targets: Floats, count: int) -> Floats:
    """Returns the principal directions of what words leave of the targets' spread.

    Args:
        basis: The words.
        targets: ``(targets, d)``.
        count: Most directions; fewer where nothing is left.

    Returns:
        ``(directions, d)``, orthonormal and orthogonal to the words.
    """
    spread = targets - targets.mean(axis=0)
    left = spread - basis.coordinates(spread) @ basis.vectors
    _, sizes, directions = np.linalg.svd(left, full_matrices=False)
    largest = max(float(np.linalg.norm(spread)), np.finfo(float).tiny)
    real = int((sizes > 1e-9 * largest).sum())
    return directions[: min(count, real)]


def whitening_matrix(coordinates: Floats, shrink: float) -> Floats:
    """Returns the matrix under which one entry's own answers vary alike in all directions.

    Args:
        coordinates: Of single pairs, ``(entries, pairs, n)``.
        shrink: Weight of the identity in the covariance, > 0 and <= 1.

    Returns:
        ``(n, n)``, to be multiplied from the right.

    Raises:
        ValueError: If the weight is no share.
    """
    if not 0 < shrink <= 1:
        raise ValueError(f"explanation.shrink must be > 0 and <= 1, got {shrink}")
    count = coordinates.shape[-1]
    noise = (coordinates - coordinates.mean(axis=1, keepdims=True)).reshape(-1, count)
    covariance = noise.T @ noise / max(len(noise) - len(coordinates), 1)
    even = float(np.trace(covariance)) / count
    if even == 0:
        return np.eye(count)
    shrunk: Floats = (1 - shrink) * covariance + shrink * even * np.eye(count)
    precision = cast(Floats, np.linalg.inv(shrunk))
    return cast(Floats, np.linalg.cholesky(precision))
