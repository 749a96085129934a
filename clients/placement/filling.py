"""Filling: which sites to take where only a whole plan's true costs say what fits.

Costs grow with every site, so a set that does not fit has no larger set that does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from fleettune.shapes.sites import Site, order

Fits = Callable[[Collection[Site]], bool]
"""Whether a plan of these sites stays within every limit."""

TRIES = 8
"""Sites that may be refused before a plan is taken as full."""
EXACT = 12
"""Candidates among which every set is looked at."""


def total(worth: Mapping[Site, float], sites: Iterable[Site]) -> float:
    """Returns the sum of benefits, added in forward order."""
    return sum(worth[site] for site in sorted(sites, key=order))


def in_order(ranked: Iterable[Site], fits: Fits) -> frozenset[Site]:
    """Returns the sites that fit one after the other; none where none does."""
    taken: frozenset[Site] = frozenset()
    for site in ranked:
        more = taken | {site}
        taken = more if fits(more) else taken
    return taken


def topped_up(taken: frozenset[Site], ranked: Iterable[Site], fits: Fits) -> frozenset[Site]:
    """Adds sites that fit one after the other, until `TRIES` of them were refused."""
    refused = 0
    for site in ranked:
        more = taken | {site}
        fitting = fits(more)
        taken = more if fitting else taken
        refused += not fitting
        if refused == TRIES:
            break
    return taken


def best_of_all(worth: Mapping[Site, float], fits: Fits, known: frozenset[Site]) -> frozenset[Site]:
    """Returns the set with the largest benefit of all that fit; one already known wins a tie.

    Sets grow site by site, in the order of benefit; one that does not fit is not grown further,
    nor one that all sites left could not lift above the best (Land and Doig 1960).
    """
    ranked = sorted(worth, key=lambda site: (-worth[site], order(site)))
    best, value = known, total(worth, known)

    def grow(taken: frozenset[Site], rest: Sequence[Site]) -> None:
        nonlocal best, value
        own = total(worth, taken)
        if own > value:
            best, value = taken, own
        for place, site in enumerate(rest):
            if own + total(worth, rest[place:]) <= value:
                return
            more = taken | {site}
            if fits(more):
                grow(more, rest[place + 1 :])

    grow(frozenset(), ranked)
    return best
