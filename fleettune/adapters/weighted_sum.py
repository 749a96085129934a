"""Merging: the weighted sum of patches' effective updates as one patch of a given rank.

Factors are concatenated, never averaged: ``sum w_k s_k B_k A_k`` is ``[w_k s_k B_k ...]`` times
``[A_k; ...]``, each scale folded in once. The product is brought to the rank by QR of both sides
and the SVD of the small matrix between them, which equals the SVD of the dense product (
docs/methods.md#weighted-sum-of-patches, HLoRA).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.shapes import Site, order

Floats = NDArray[np.float64]


def merge_patches(
    patches: Sequence[Patch], weights: Sequence[float], rank: int, alpha: float
) -> Patch:
    """Returns the weighted sum of patches for one release, nearest in the Frobenius norm.

    Args:
        patches: What is added; sites may differ, an absent one adds nothing.
        weights: One per patch.
        rank: Largest rank at a site; lower where the sum has less.
        alpha: Alpha of the result.

    Raises:
        ValueError: If there is nothing to add, weights do not fit, or releases differ.
    """
    if not patches or len(weights) != len(patches):
        raise ValueError(
            f"a merge needs a weight per patch, got {len(patches)} patches, {len(weights)} weights"
        )
    if len({patch.release for patch in patches}) > 1:
        releases = sorted({patch.release for patch in patches})
        raise ValueError(f"merged patches must be for one release, got {releases}")
    if rank < 1 or not alpha > 0:
        raise ValueError(f"a merge must have rank >= 1 and alpha > 0, got {rank} and {alpha}")
    plain = [patch.untie() for patch in patches]
    sites = sorted({site for patch in plain for site in patch.factors}, key=order)
    return Patch(
        release=patches[0].release,
        alpha=alpha,
        factors={site: _site(plain, weights, site, rank, alpha) for site in sites},
    )


def _site(
    patches: Sequence[Patch], weights: Sequence[float], site: Site, rank: int, alpha: float
) -> Factors:
    held = [(p, w) for p, w in zip(patches, weights, strict=True) if site in p.factors]
    left = np.concatenate([w * p.scale(site) * p.factors[site].b.astype(float) for p, w in held], 1)
    right = np.concatenate([p.factors[site].a.astype(float) for p, _ in held], 0)
    return compress(left, right, rank, alpha)


def compress(left: Floats, right: Floats, rank: int, alpha: float) -> Factors:
    """Returns factors of ``left @ right`` at a rank, whose scale is ``alpha / rank`` of the result.

    Args:
        left: ``(n_out, k)``.
        right: ``(k, n_in)``.
        rank: Largest rank; the smaller of this, k and the sides is used.
        alpha: LoRA's alpha of the result.
    """
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, values, v = np.linalg.svd(r_left @ r_right.T)
    kept = min(rank, len(values))
    # the two factors share the singular values evenly, so that neither trains faster
    root = np.sqrt(values[:kept])
    unscaled = np.sqrt(kept / alpha)
    b = unscaled * (q_left @ u[:, :kept]) * root
    a = unscaled * root[:, None] * (v[:kept] @ q_right.T)
    return Factors(a=a.astype(np.float32), b=b.astype(np.float32))


def nonnegative_pair(one: Floats, other: Floats, target: Floats) -> tuple[float, float, float]:
    """Returns the weights a, b >= 0 of least ``|a one + b other - target|``, and that norm.

    Solved exactly: inside if both weights of the unconstrained problem are positive, else on the
    better edge.
    """
    gram = np.array([[one @ one, one @ other], [one @ other, other @ other]])
    wanted = np.array([one @ target, other @ target])
    options = [(0.0, 0.0)]
    options += [(max(0.0, wanted[0] / gram[0, 0]), 0.0)] if gram[0, 0] > 0 else []
    options += [(0.0, max(0.0, wanted[1] / gram[1, 1]))] if gram[1, 1] > 0 else []
    determinant = float(np.linalg.det(gram))
    if determinant > 1e-12 * gram[0, 0] * gram[1, 1]:
        a, b = np.linalg.solve(gram, wanted)
        options += [(float(a), float(b))] if a > 0 and b > 0 else []
    lefts = [float(np.linalg.norm(a * one + b * other - target)) for a, b in options]
    best = int(np.argmin(lefts))
    return float(options[best][0]), float(options[best][1]), lefts[best]
