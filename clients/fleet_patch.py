"""The fleet patch on a device: where a tune starts from what the fleet learned.

A server that averages deltas may send the average back. Its factors carry the singular values in
descending order, so its best approximation of a lower rank is its first components, and no device
has to decompose anything.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fleettune.adapters import Patch
from fleettune.factors import Array, Factors
from fleettune.sites import Site


def warm_start(fresh: Patch, fleet: Patch | None) -> tuple[Patch, Patch | None]:
    """Returns what a tune starts from, and the part of the fleet patch that is in it.

    At sites with factors of their own the first components are the fleet's and those beyond its
    rank are fresh: A drawn, B zero. Sites that share a pair start fresh, as does every site that
    the fleet patch leaves out.

    Args:
        fresh: The untrained patch, which names the release that is tuned.
        fleet: The fleet patch; it may name an older release. Starting a tune from it is the
            decision to carry it over.
    """
    if fleet is None:
        return fresh, None
    theirs = fleet.untied()
    common = [site for site in fresh.factors if site in theirs.factors]
    factors, parts = dict(fresh.factors), dict[Site, Factors]()
    for site in common:
        own, given = fresh.factors[site], theirs.factors[site]
        rank = min(own.a.shape[0], given.a.shape[0])
        # the part's scale in a patch of its own rank is theirs; in the start it is the device's
        part = Factors(a=given.a[:rank], b=_times(given.b[:, :rank], theirs.scale(site)))
        parts[site] = Factors(a=part.a, b=_times(part.b, rank / fresh.alpha))
        factors[site] = Factors(
            a=np.concatenate([part.a, own.a[rank:]]),
            b=np.concatenate([_times(part.b, 1 / fresh.scale(site)), own.b[:, rank:]], axis=1),
        )
    if not common:
        return fresh, None
    sent = Patch(release=fresh.release, alpha=fresh.alpha, factors=parts)
    return replace(fresh, factors=factors), sent


def _times(array: Array, factor: float) -> Array:
    return (array.astype(np.float64) * factor).astype(np.float32)
