"""Updates: what a patch changes at each site, as a product of two thin matrices.

A patch's factors are one of many ways to write its update. ``alpha / rank`` is folded in here,
once, and everything that compares or adds patches works on updates
(docs/methods.md#updates-and-their-best-approximation), in doubles. Factors are set side by side,
never averaged: ``sum w_k s_k B_k A_k`` is ``[w_k s_k B_k ...] [A_k; ...]``. Such a product is
brought to a rank by the QR trick (NVFlare, HLoRA): two QR decompositions and the SVD of a small
core give the best approximation of that rank, and no dense matrix is formed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.shapes import Site, order

Floats = NDArray[np.float64]
Matrix = NDArray[np.float64]

EXACT = 1e-12
"""Singular values below this share of the largest are rounding of double precision."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Update:
    """One site's update ``left @ right``: ``(n_out, rank)`` times ``(rank, n_in)``."""

    left: Matrix
    right: Matrix

    @property
    def rank(self) -> int:
        """Columns of the left factor; the update's own rank may be lower."""
        return self.left.shape[1]

    def dense(self) -> Matrix:
        """Returns the update as one matrix, ``(n_out, n_in)``."""
        return self.left @ self.right

    def norm(self) -> float:
        """Returns the Frobenius norm, without the dense matrix."""
        core = np.linalg.qr(self.left).R @ np.linalg.qr(self.right.T).R.T
        return float(np.linalg.norm(core))

    def times(self, factor: float) -> Update:
        """Returns the update times a number, which goes into one of the factors."""
        return Update(left=self.left * factor, right=self.right)

    def truncate(self, rank: int | None = None, tolerance: float = EXACT) -> Update:
        """Returns the best approximation of a rank; both factors carry its singular values' root.

        The largest entry of every left column is positive, so the form is unique where no singular
        values are equal. Equal results on other machines are not promised: compare products.

        Args:
            rank: Largest rank; None for as many as there are.
            tolerance: Singular values below this share of the largest are left out.
        """
        return self.truncate_with_error(rank, tolerance)[0]

    def truncate_with_error(
        self, rank: int | None = None, tolerance: float = EXACT
    ) -> tuple[Update, float]:
        """Returns what `truncate` returns, and the Frobenius norm of what that leaves out."""
        outer, inner = np.linalg.qr(self.left), np.linalg.qr(self.right.T)
        u, s, vt = np.linalg.svd(outer.R @ inner.R.T, full_matrices=False)
        kept = max(1, int((s > tolerance * s[0]).sum()))
        kept = kept if rank is None else min(kept, rank)
        root = np.sqrt(s[:kept])
        left, right = outer.Q @ (u[:, :kept] * root), (root[:, None] * vt[:kept]) @ inner.Q.T
        signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(kept)])
        signs[signs == 0] = 1
        short = Update(left=left * signs, right=signs[:, None] * right)
        return short, float(np.linalg.norm(s[kept:]))


def factor_dense(matrix: Matrix) -> Update:
    """Returns a matrix as an update of full rank."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(s)
    return Update(left=u * root, right=root[:, None] * vt)


Updates = Mapping[Site, Update]


def add_updates(parts: Sequence[Update]) -> Update:
    """Returns the exact sum of updates, whose rank is the sum of their ranks."""
    return Update(
        left=np.concatenate([part.left for part in parts], axis=1),
        right=np.concatenate([part.right for part in parts]),
    )


def updates_of(patch: Patch) -> dict[Site, Update]:
    """Returns a patch's update at every adapted site, tied ones too, in forward order."""
    plain = patch.untie()
    return {
        site: Update(
            left=plain.factors[site].b.astype(np.float64) * plain.scale(site),
            right=plain.factors[site].a.astype(np.float64),
        )
        for site in sorted(plain.factors, key=order)
    }


def patch_of(updates: Updates, release: int, alpha: float) -> Patch:
    """Returns the patch with factors of their own that has these updates.

    What undoes ``alpha / rank`` goes into both factors, so updates that were balanced stay so.

    Raises:
        ValueError: If alpha is not > 0.
    """
    if not alpha > 0:
        raise ValueError(f"a patch's alpha must be > 0, got {alpha}")
    factors: dict[Site, Factors] = {}
    for site in sorted(updates, key=order):
        update = updates[site]
        root = np.sqrt(update.rank / alpha)
        factors[site] = Factors(
            a=(root * update.right).astype(np.float32), b=(root * update.left).astype(np.float32)
        )
    return Patch(release=release, alpha=alpha, factors=factors)


def delta(patch: Patch, sent: Patch | None) -> Patch:
    """Returns what a patch changes beyond one that the server sent, in factored form.

    Where nothing was sent that is the patch itself, pairs that sites share included. At the sites
    that both adapt it is the difference of both updates: their ranks add up, less what they have in
    common. A pair that shares such a site comes apart.
    """
    return patch if sent is None else _less(patch, sent)


def _less(patch: Patch, sent: Patch) -> Patch:
    """Returns a patch less another one, at the sites of the first."""
    theirs = updates_of(sent)
    whole = tuple(tied for tied in patch.ties if not theirs.keys() & tied.vectors.keys())
    apart = replace(patch, ties=tuple(tied for tied in patch.ties if tied not in whole)).untie()
    own = updates_of(apart)
    # single precision is what the factors came in; below its rounding there is no signal
    found = {
        site: add_updates([own[site], theirs[site].times(-1)]).truncate(tolerance=1e-7)
        for site in own
        if site in theirs
    }
    both = patch_of(found, patch.release, patch.alpha).factors
    factors = {site: both.get(site, item) for site, item in apart.factors.items()}
    return replace(apart, factors=factors, ties=whole)


def total_norm(updates: Iterable[Update]) -> float:
    """Returns the Frobenius norm over several sites."""
    return float(np.sqrt(sum(update.norm() ** 2 for update in updates)))


def merge_patches(
    patches: Sequence[Patch], weights: Sequence[float], rank: int, alpha: float
) -> Patch:
    """Returns the patch of a rank that is nearest to a weighted sum, in the Frobenius norm.

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

    Exact: where a weight of the unconstrained solution is negative, the best one has a zero in it.
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
