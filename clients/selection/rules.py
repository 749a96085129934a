"""Selection: which exchanges a device keeps under a byte quota.

A selection is a pure function of what is held, what arrived and a keyed number per exchange. Here
stand the rules that read no text; `clients.selection.quality` and `clients.selection.coresets` hold
those that do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heappop, heappush
from typing import Protocol, TypeVar, runtime_checkable

from clients.selection.buffer import Arrival, Item, sort_by_time, total_bytes
from fleettune.data.exchanges import Exchange

Priority = Callable[[Exchange], float]
"""A random number from 0 to 1 for every exchange, the same for ever."""

T = TypeVar("T")


class Embeddings(StrEnum):
    """What becomes of the embeddings of exchanges.

    ``stored``: an exchange is embedded when it arrives; what a rule keeps of the embedding counts
    against the quota. ``again``: nothing is kept of it. The exchanges held are embedded again
    whenever others arrive, and what is saved in bytes is paid in passes.
    """

    NOTHING = "nothing"
    STORED = "stored"
    AGAIN = "again"


@runtime_checkable
class Selection(Protocol):
    """A rule for the buffer."""

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        """Returns what to hold from now on, in time order, within `quota_bytes`."""
        ...


@runtime_checkable
class EmbeddingSelection(Protocol):
    """A rule for the buffer that reads embeddings of the exchanges."""

    @property
    def embeddings(self) -> str:
        """What becomes of them, a value of `Embeddings`; the device pays for every pass."""
        ...


def embeddings_of(selection: Selection) -> str:
    """Returns what becomes of embeddings under a rule; most rules want none."""
    wants = isinstance(selection, EmbeddingSelection)
    return selection.embeddings if wants else Embeddings.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Fifo:
    """Keeps the newest exchanges."""

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        """Returns the longest run of newest exchanges that fits."""
        kept: list[Item] = []
        used = 0
        for item in reversed(sort_by_time((*held, *_without_notes(arrived)))):
            used += item.size_bytes
            if used > quota_bytes:
                break
            kept.append(item)
        return tuple(reversed(kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservoir:
    """Keeps a random sample of all exchanges ever seen; uniform where sizes are equal.

    Every exchange has one random priority for ever (Efraimidis and Spirakis 2006 with equal
    weights). Exchanges come in one by one, and while the quota is exceeded the one of highest
    priority number goes, so the sample does not depend on how the stream was cut into nights.
    """

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        """Returns those of lowest priority number; what alone is too large is passed over."""
        kept: list[tuple[float, int, Item]] = []
        used = 0
        for item in sort_by_time((*held, *_without_notes(arrived))):
            if item.size_bytes > quota_bytes:
                continue
            heappush(kept, (-priority(item.exchange), item.order, item))
            used += item.size_bytes
            while used > quota_bytes:
                used -= heappop(kept)[2].size_bytes
        return sort_by_time(entry[2] for entry in kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomReplace:
    """Takes every exchange in and drops random ones of those held: the usual random rival.

    Unlike a reservoir it forgets: the chance to be still there falls with age.
    """

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        """Returns what is left; what alone is too large is passed over."""
        kept = list(shrink(held, quota_bytes, priority))
        used = total_bytes(kept)
        for item in sort_by_time(_without_notes(arrived)):
            if item.size_bytes > quota_bytes:
                continue
            used += item.size_bytes
            if used > quota_bytes:
                going = shuffle(kept, priority(item.exchange))
                kept = free_bytes(kept, going, used - quota_bytes)
            kept.append(item)
            used = total_bytes(kept)
        return sort_by_time(kept)


def check_vectors(vectors: str) -> None:
    """Raises ValueError if a rule that embeds is to do anything but store or embed again."""
    allowed = (Embeddings.STORED.value, Embeddings.AGAIN.value)
    if vectors not in allowed:
        raise ValueError(f"vectors must be one of {allowed}, got {vectors!r}")


def shrink(held: Sequence[Item], quota_bytes: int, priority: Priority) -> tuple[Item, ...]:
    """Returns held items within a quota that may have become smaller, without random ones."""
    kept = list(sort_by_time(held))
    used = total_bytes(kept)
    while used > quota_bytes:
        gone = max(kept, key=lambda item: (priority(item.exchange), item.order))
        kept.remove(gone)
        used -= gone.size_bytes
    return tuple(kept)


def free_bytes(items: Sequence[Item], going: Sequence[Item], least_bytes: int) -> list[Item]:
    """Returns items without the first of those `going` that together free `least_bytes`."""
    gone: set[int] = set()
    for item in going:
        if least_bytes <= 0:
            break
        gone.add(item.order)
        least_bytes -= item.size_bytes
    return [item for item in items if item.order not in gone]


def shuffle(values: Sequence[T], number: float) -> list[T]:
    """Returns values in an order drawn by one random number from 0 to 1.

    The first value is uniform, and so are the following ones as long as the 53 bits of the number
    last; behind that the order is fixed.
    """
    left, drawn = list(values), list[T]()
    while left:
        number *= len(left)
        place = min(int(number), len(left) - 1)
        number -= place
        drawn.append(left.pop(place))
    return drawn


def _without_notes(arrived: Sequence[Arrival]) -> list[Item]:
    return [Item(exchange=arrival.exchange) for arrival in arrived]
