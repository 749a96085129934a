"""Drift: how far a release moved from a patch's own, and how strong that patch is.

Three scopes. ``target_modules`` and ``patched`` come from the manifest's sums per matrix alone
(docs/methods.md#edgetune-released-drift-and-strength): of all matrices, as EdgeTune's released code
has it, or of those that the patch touches. ``projected`` (docs/methods.md#drift-by-scope) looks at
both releases' weights on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.adaptation.device_view import DeviceView
from clients.adaptation.rules import dense_flop, pool_moments
from fleettune.adapters.patch import Factors, Patch
from fleettune.releases.manifest import Manifest, moments
from fleettune.releases.model_files import weights_at

TARGET_MODULES, PATCHED, PROJECTED = "target_modules", "patched", "projected"
SCOPES = (TARGET_MODULES, PATCHED, PROJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchDrift:
    """Drift and strength, and what measuring them took.

    Attributes:
        drift: Over matrices: ``mean(x^2) + k_var * std(x^2)``; projected: a sum of squares.
        strength: Of the patch, in the same terms.
        read_bytes: Bytes of the patch that were read.
        read_weights: Base weights that were read.
        work_flop: FLOP.
        path: As `clients.adaptation.decision.PatchHistory.path`, with this release.
    """

    drift: float
    strength: float
    read_bytes: int
    read_weights: int = 0
    work_flop: float
    path: float = 0.0


def measure_drift(scope: str, view: DeviceView, k_var: float) -> PatchDrift | None:
    """Returns drift and strength in a scope; None where the device lacks what that needs."""
    if scope != PROJECTED:
        return _of_moments(view.release, view.patch, k_var, patched=scope == PATCHED)
    if view.before is None:
        return None
    return measure_projected(view.patch, view.before, view.release, view.history.path)


def _of_moments(release: Manifest, patch: Patch, k_var: float, *, patched: bool) -> PatchDrift:
    plain, by_site = patch.untie(), release.drift_since(patch.release)
    if patched:
        by_site = {site: by_site[site] for site in plain.factors}
    changes = {site: moments(plain.dense(site)) for site in plain.factors}
    return PatchDrift(
        drift=pool_moments(by_site).magnitude(k_var),
        strength=pool_moments(changes).magnitude(k_var),
        read_bytes=patch.size_bytes,
        work_flop=float(sum(dense_flop(plain, site) for site in plain.factors)),
    )


def measure_projected(patch: Patch, before: Manifest, release: Manifest, path: float) -> PatchDrift:
    """Returns the drift inside the subspaces that a patch reads and writes, and its strength.

    Per matrix ``||delta P||^2 + ||Q delta||^2`` with P the projection on the rows of A and Q that
    on the columns of B, which is docs/methods.md#drift-by-scope where both have full rank; strength
    is
    ``||alpha / rank * B A||^2``. Over several releases the roots are added (`PatchHistory.path`),
    so the device keeps one number and no third release.

    Args:
        patch: The patch.
        before: The release that the device holds still.
        release: The new one.
        path: Of the releases since the tune, without the new one.
    """
    plain, drift, strength, flop, weights = patch.untie(), 0.0, 0.0, 0, 0
    sites = tuple(plain.factors)
    pairs = zip(
        weights_at(Path(before.path), sites), weights_at(Path(release.path), sites), strict=True
    )
    for (site, old), (_, new) in pairs:
        item = plain.factors[site]
        delta = new.astype(np.float64) - old
        drift += float(np.square(delta @ basis(item.a.T)).sum())
        drift += float(np.square(basis(item.b).T @ delta).sum())
        strength += _squared(item, plain.scale(site))
        flop += _projected_flop(item)
        weights += 2 * delta.size
    path += drift**0.5
    return PatchDrift(
        drift=path**2,
        strength=strength,
        read_bytes=patch.size_bytes,
        read_weights=weights,
        work_flop=float(flop),
        path=path,
    )


def basis(columns: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns an orthonormal basis, ``(n, rank)``, of what some columns span."""
    u, s, _ = np.linalg.svd(columns.astype(np.float64), full_matrices=False)
    kept = s > s.max() * max(columns.shape) * np.finfo(np.float32).eps
    return u[:, kept & (s > 0)]


def _squared(item: Factors, scale: float) -> float:
    """Returns ``||scale * B A||^2`` from the factors' own products."""
    a, b = item.a.astype(np.float64), item.b.astype(np.float64)
    return scale**2 * float(((b.T @ b) * (a @ a.T)).sum())


def _projected_flop(item: Factors) -> int:
    (rank, n_in), n_out = item.a.shape, item.b.shape[0]
    # the difference, its two products with a basis, their squares; Gram matrices, for the strength
    # and for the bases, and the bases themselves
    return n_in * n_out * (1 + 4 * rank) + (n_in + n_out) * rank * (2 + 4 * rank)
