"""A selection rule of one's own: keep the shortest exchanges, so that many of them fit.

It lives outside the repository's packages. A class with a `keep` method is a selection rule;
nothing is inherited or registered. `clients/selection/` holds the built-in ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clients.selection.buffer import Arrival, Item, sort_by_time
from clients.selection.rules import Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortest:
    """Keeps the shortest exchanges of all that are there.

    Attributes:
        least_bytes: Exchanges with fewer bytes of text are never kept.
    """

    least_bytes: int

    def __post_init__(self) -> None:
        if self.least_bytes < 0:
            raise ValueError(f"least_bytes must be >= 0 bytes, got {self.least_bytes}")

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        """Returns what to hold from now on, in time order, within `quota_bytes`.

        Args:
            held: What the device held before, each with its size in bytes.
            arrived: What came since.
            quota_bytes: Most bytes that may be held.
            priority: A random number from 0 to 1 for every exchange; not used here.
        """
        del priority
        items = [*held, *(Item(exchange=arrival.exchange) for arrival in arrived)]
        kept: list[Item] = []
        used = 0
        for item in sorted(items, key=lambda item: (item.size_bytes, item.order)):
            if item.size_bytes < self.least_bytes:
                continue
            used += item.size_bytes
            if used > quota_bytes:
                break
            kept.append(item)
        return sort_by_time(kept)
