"""Best set of sites: by bounds of their costs as one integer program, then by their true costs.

Source: docs/methods.md#gradcut-by-joule-the-cut.

A `SiteItem` has a value, a depth and a cost in every dimension. A `Cut` has a base cost and allows
the items at its depth or above. `best_items` takes one cut and the set of its items with the
largest sum of values whose costs, the base included, stay within every limit. `fill_up` and
`best_sites` go on from there with plans that are asked whether they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from fleettune.shapes import Site, order

Costs = tuple[float, ...]
"""One number per dimension, all >= 0."""
Fits = Callable[[Collection[Site]], bool]
"""Whether a plan of these sites stays within every limit."""

NODES = 2000
"""Nodes of one branch-and-bound search, after which the best set so far is taken."""
TRIES = 8
"""Sites that may be refused before a plan is taken as full."""
EXACT = 12
"""Candidates among which every set is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteItem:
    """Something to take: its value, the depth it lies at, what it costs."""

    value: float
    depth: int
    costs: Costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A depth down to which items may be taken, and what reaching it costs before any item."""

    depth: int
    costs: Costs


def best_items(items: Sequence[SiteItem], cuts: Sequence[Cut], limits: Costs) -> tuple[int, ...]:
    """Returns the places of the items to take, ascending; none where no cut has room for any.

    Their sum of values is the largest, but for 1 part in 10,000 and where `NODES` do not suffice.

    Raises:
        ValueError: If numbers of dimensions differ.
    """
    if any(len(thing.costs) != len(limits) for thing in (*items, *cuts)):
        raise ValueError(f"every cost must have {len(limits)} dimensions, one per limit")
    places = [place for place, item in enumerate(items) if item.value > 0]
    able = [cut for cut in cuts if _within(cut.costs, limits)]
    # the solver may exceed a limit by its tolerance of 1e-6; then it gets a little less room
    for share in (1.0, 1 - 1e-5):
        if not places or not able:
            break
        taken = _solve([items[place] for place in places], able, share * np.array(limits))
        found = tuple(place for place, is_in in zip(places, taken, strict=True) if is_in)
        if any(_allows(cut, [items[place] for place in found], limits) for cut in able):
            return found
    return ()


def _solve(
    items: Sequence[SiteItem], cuts: Sequence[Cut], limits: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Returns whether each item is in the best set: one variable per item, one per cut."""
    values = np.array([item.value for item in items])
    costs = np.array([thing.costs for thing in (*items, *cuts)]).T
    above = [[item.depth >= cut.depth for cut in cuts] for item in items]
    scale = np.where(limits > 0, limits, 1.0)
    found = milp(
        np.concatenate([-values / values.sum(), np.zeros(len(cuts))]),
        constraints=[
            LinearConstraint(costs / scale[:, None], ub=limits / scale),
            # an item needs a cut that allows it, and there is one cut
            LinearConstraint(np.hstack([np.eye(len(items)), -np.array(above, float)]), ub=0.0),
            LinearConstraint(np.repeat([0.0, 1.0], [len(items), len(cuts)]), ub=1.0),
        ],
        integrality=np.ones(len(items) + len(cuts), int),
        bounds=Bounds(0, 1),
        options={"node_limit": NODES},
    )
    taken = np.zeros(len(items)) if found.x is None else found.x[: len(items)]
    return taken > 0.5


def _allows(cut: Cut, items: Sequence[SiteItem], limits: Costs) -> bool:
    spent = [sum(each) for each in zip(cut.costs, *(item.costs for item in items), strict=True)]
    return all(item.depth >= cut.depth for item in items) and _within(spent, limits)


def _within(costs: Sequence[float], limits: Costs) -> bool:
    return all(cost <= limit for cost, limit in zip(costs, limits, strict=True))


def fill_up(taken: frozenset[Site], ranked: Iterable[Site], fits: Fits) -> frozenset[Site]:
    """Returns the sites taken and those that fit besides, until `TRIES` of them were refused."""
    refused = 0
    for site in ranked:
        more = taken | {site}
        fitting = fits(more)
        taken = more if fitting else taken
        refused += not fitting
        if refused == TRIES:
            break
    return taken


def best_sites(worth: Mapping[Site, float], fits: Fits, known: frozenset[Site]) -> frozenset[Site]:
    """Returns a set of sites that fits, with a sum of benefits that `known` does not exceed.

    Among up to `EXACT` candidates it is the set with the largest sum of all that fit. Among more
    it is the better of `known` and of the sites that fit one after the other by their benefit.

    Sets grow site by site, in the order of benefit; one that does not fit is not grown further,
    nor one that all sites left could not lift above the best (Land and Doig 1960).
    """
    ranked = sorted(worth, key=lambda site: (-worth[site], order(site)))
    best, value = known, sum_benefits(worth, known)
    left = 2**EXACT if len(worth) <= EXACT else len(worth)

    def grow(taken: frozenset[Site], rest: Sequence[Site]) -> None:
        nonlocal best, value, left
        own = sum_benefits(worth, taken)
        if own > value:
            best, value = taken, own
        for place, site in enumerate(rest):
            if own + sum_benefits(worth, rest[place:]) <= value or left == 0:
                return
            left -= 1
            more = taken | {site}
            if fits(more):
                grow(more, rest[place + 1 :])

    grow(frozenset(), ranked)
    return best


def sum_benefits(worth: Mapping[Site, float], sites: Iterable[Site]) -> float:
    """Returns the sum of benefits, added in forward order."""
    return sum(worth[site] for site in sorted(sites, key=order))
