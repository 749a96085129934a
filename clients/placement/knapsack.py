"""Knapsack with a cut: which items to take at or above which depth, under several limits.

An item has a value, a depth and a cost in every dimension; a cut has a base cost of its own and
allows the items at its depth or above. Wanted is the cut and the set of its items with the largest
sum of values whose costs, the base included, stay within every limit
(docs/methods.md#gradcut-by-joule-the-cut). Every cut is
tried. Within a cut items are taken by value per cost, once for every limit that binds; where that
may be more than 1 % below the best set, a branch-and-bound search follows: complete for up to 12
items, cut short after `NODES` steps beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleettune.shapes import Site, order

Costs = tuple[float, ...]
"""One number per dimension, all >= 0."""

TOLERANCE = 0.01
"""Share of the best value that a search may leave on the table."""
NODES = 8192
"""Steps of one cut's search: a whole tree of 12 items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something to take: its value, the depth it lies at, what it costs."""

    value: float
    depth: int
    costs: Costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A depth down to which items may be taken, and what reaching it costs before any item."""

    depth: int
    costs: Costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A cut with the items taken, by their places in the list given, ascending."""

    cut: Cut
    taken: tuple[int, ...]
    value: float
    costs: Costs


def best_cut(items: Sequence[Item], cuts: Sequence[Cut], limits: Costs) -> Filled | None:
    """Returns the best cut with its items; None where no cut has room for an item of value.

    Of equal values the one with the lower costs wins, dimension by dimension.

    Raises:
        ValueError: If numbers of dimensions differ.
    """
    if any(len(thing.costs) != len(limits) for thing in (*items, *cuts)):
        raise ValueError(f"every cost must have {len(limits)} dimensions, one per limit")
    fillings = [_Filling(items, cut, limits) for cut in cuts]
    open_ones = [filling for filling in fillings if filling.order]
    best = max((filling.value for filling in open_ones), default=0.0)
    for filling in sorted(open_ones, key=lambda one: -one.bound):
        filling.search(best)
        best = max(best, filling.value)
    found = [filling.filled() for filling in open_ones]
    return min(found, key=lambda one: (-one.value, one.costs), default=None)


class _Filling:
    """One cut's search: the best set so far, and a bound that no set exceeds."""

    def __init__(self, items: Sequence[Item], cut: Cut, limits: Costs) -> None:
        self._items, self._cut = items, cut
        self._room = tuple(limit - cost for limit, cost in zip(limits, cut.costs, strict=True))
        able = [place for place in range(len(items)) if self._may_take(items[place])]
        tight = [
            dimension
            for dimension, room in enumerate(self._room)
            if sum(items[place].costs[dimension] for place in able) > room
        ]
        self.order, self.taken, self._tight = able, tuple(able), -1
        self.value = self.bound = sum(items[place].value for place in able)
        if tight:
            self._fill_greedily(able, tight)

    def _may_take(self, item: Item) -> bool:
        fits = all(cost <= room for cost, room in zip(item.costs, self._room, strict=True))
        return fits and item.depth >= self._cut.depth and item.value > 0

    def _fill_greedily(self, able: list[int], tight: list[int]) -> None:
        self.value, self.taken = -1.0, ()
        for dimension in tight:
            order = sorted(able, key=lambda place: (-self._ratio(place, dimension), place))
            taken: list[int] = []
            left = self._room
            for place in order:
                rest = self._less(left, place)
                if min(rest) >= 0:
                    left = rest
                    taken.append(place)
            value = sum(self._items[place].value for place in taken)
            if value > self.value:
                self.value, self.taken = value, tuple(taken)
            bound = self._bound(order, 0, self._room[dimension], dimension)
            if bound <= self.bound:
                self.bound, self.order, self._tight = bound, order, dimension

    def _ratio(self, place: int, dimension: int) -> float:
        item = self._items[place]
        cost = item.costs[dimension]
        return item.value / cost if cost > 0 else float("inf")

    def _less(self, left: Costs, place: int) -> Costs:
        costs = self._items[place].costs
        return tuple(room - cost for room, cost in zip(left, costs, strict=True))

    def _bound(self, order: Sequence[int], start: int, room: float, dimension: int) -> float:
        """Returns the value of the rest if its items could be divided (Dantzig 1957)."""
        value = 0.0
        for place in order[start:]:
            item = self._items[place]
            cost = item.costs[dimension]
            if cost > room:
                return value + item.value * room / cost
            room -= cost
            value += item.value
        return value

    def search(self, best: float) -> None:
        """Looks for a set that beats both its own and the best other cut's by the tolerance."""
        floor = max(best, self.value)
        stack: list[tuple[int, float, Costs, tuple[int, ...]]] = [(0, 0.0, self._room, ())]
        nodes = 0
        while self._tight >= 0 and stack and nodes < NODES:
            nodes += 1
            start, value, left, taken = stack.pop()
            if value > floor:
                floor = self.value = value
                self.taken = taken
            if start == len(self.order):
                continue
            rest = self._bound(self.order, start, left[self._tight], self._tight)
            if value + rest <= floor * (1 + TOLERANCE):
                continue
            place = self.order[start]
            stack.append((start + 1, value, left, taken))
            after = self._less(left, place)
            if min(after) >= 0:
                more = value + self._items[place].value
                stack.append((start + 1, more, after, (*taken, place)))

    def filled(self) -> Filled:
        """Returns the best set found."""
        taken = tuple(sorted(self.taken))
        costs = list(self._cut.costs)
        for place in taken:
            costs = [sum(pair) for pair in zip(costs, self._items[place].costs, strict=True)]
        return Filled(cut=self._cut, taken=taken, value=self.value, costs=tuple(costs))


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
