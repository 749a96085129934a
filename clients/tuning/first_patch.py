"""What a tune starts from: a fresh patch, and in it what the fleet learned.

A server that averages deltas may send the average back. Its factors carry the singular values in
descending order, so its best approximation of a lower rank is its first components, and no device
has to decompose anything.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clients.work.facts import Facts
from fleettune.adapters.factors import Array, Factors
from fleettune.adapters.patch import Patch, Placement, new_factors, new_patch
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Site, order


def new_start(facts: Facts, release: Manifest, placement: Placement, *, shared: bool) -> Patch:
    """Returns the untrained patch that a device's tune on a release starts from.

    Args:
        facts: The device.
        release: The release.
        placement: Which sites train.
        shared: Whether A is the same on all devices, site by site, as it must be where it is
            frozen; else it is the device's own.

    Raises:
        ValueError: If A is to be shared among devices and sites share a pair.
    """
    if not shared:
        rng = stream(facts.seed, Purpose.ADAPTER, facts.device, release.version)
        return new_patch(placement, release.shapes, release.version, rng)
    if placement.ties:
        raise ValueError("tuning.frozen_a must be false where sites share a pair of factors")
    matrices = release.shapes.matrices()
    factors: dict[Site, Factors] = {}
    for site in sorted(placement.sites, key=order):
        keys = (release.version, site.layer, MODULES.index(site.module))
        rng = stream(facts.seed, Purpose.SHARED_A, *keys)
        factors[site] = new_factors(*matrices[site.module], placement.rank, rng)
    return Patch(release=release.version, alpha=placement.alpha, factors=factors)


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
    theirs = fleet.untie()
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
