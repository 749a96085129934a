"""Selection: which exchanges a device keeps under a byte quota.

A selection is a pure function of what is held, what arrived and a keyed priority per exchange;
it can only return a set that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol, runtime_checkable

from fleettune.exchanges import Exchange

Priority = Callable[[Exchange], float]


@runtime_checkable
class Selection(Protocol):
    """A rule for the buffer."""

    def keep(
        self,
        held: Sequence[Exchange],
        arrived: Sequence[Exchange],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Exchange, ...]:
        """Returns what to hold from now on, in time order, within `quota_bytes`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fifo:
    """Keeps the newest exchanges."""

    def keep(
        self,
        held: Sequence[Exchange],
        arrived: Sequence[Exchange],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Exchange, ...]:
        """Returns the longest run of newest exchanges that fits."""
        newest_first = sorted((*held, *arrived), key=lambda exchange: -exchange.order)
        kept: list[Exchange] = []
        used = 0
        for exchange in newest_first:
            used += exchange.size_bytes
            if used > quota_bytes:
                break
            kept.append(exchange)
        return tuple(reversed(kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservoir:
    """Keeps a random sample of all exchanges ever seen; uniform where sizes are equal.

    Every exchange has one random priority for ever (Efraimidis and Spirakis 2006 with equal
    weights). Exchanges come in one by one, and while the quota is exceeded the one of highest
    priority number goes, so the sample does not depend on how the stream was cut into nights.
    """

    def keep(
        self,
        held: Sequence[Exchange],
        arrived: Sequence[Exchange],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Exchange, ...]:
        """Returns those of lowest priority number; what alone is too large is passed over."""
        kept: list[tuple[float, int, Exchange]] = []
        used = 0
        for exchange in sorted((*held, *arrived), key=lambda exchange: exchange.order):
            if exchange.size_bytes > quota_bytes:
                continue
            heappush(kept, (-priority(exchange), exchange.order, exchange))
            used += exchange.size_bytes
            while used > quota_bytes:
                used -= heappop(kept)[2].size_bytes
        return tuple(sorted((entry[2] for entry in kept), key=lambda exchange: exchange.order))
