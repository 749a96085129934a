"""Selection: which exchanges a device keeps under a byte quota.

A selection is a pure function of what is held, what arrived and a keyed priority per exchange;
it can only return a set that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fleettune.exchanges import Exchange

Priority = Callable[[Exchange], float]


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
    """Keeps a uniform sample of all exchanges ever seen.

    Every exchange has one random priority for ever; those with the lowest are kept as far as the
    quota goes (Efraimidis and Spirakis 2006 with equal weights), so the sample does not depend
    on how the stream was cut into nights.
    """

    def keep(
        self,
        held: Sequence[Exchange],
        arrived: Sequence[Exchange],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Exchange, ...]:
        """Returns the exchanges of lowest priority number that fit."""
        kept: list[Exchange] = []
        used = 0
        for exchange in sorted((*held, *arrived), key=priority):
            used += exchange.size_bytes
            if used > quota_bytes:
                break
            kept.append(exchange)
        return tuple(sorted(kept, key=lambda exchange: exchange.order))
