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

from clients.selection.buffer import Item, Reading, in_time, total_bytes
from fleettune.data.exchanges import Exchange

Priority = Callable[[Exchange], float]
"""A random number from 0 to 1 for every exchange, the same for ever."""

T = TypeVar("T")


class Text(StrEnum):
    """Which text of an exchange a selection wants embedded when it arrives.

    With ``again`` that of the exchanges held as well, whenever others arrive: then no embedding is
    stored, and what is saved in bytes is paid in passes.
    """

    NOTHING = "nothing"
    QUESTION = "question"
    DIALOGUE = "dialogue"
    QUESTION_AGAIN = "question_again"
    DIALOGUE_AGAIN = "dialogue_again"


STORED, AGAIN = "stored", "again"
"""What becomes of embeddings behind a selection: kept under the quota, or made again."""


def wanted(text: str, vectors: str) -> Text:
    """Returns the value of `Text` for a text and what becomes of its embedding."""
    return Text(f"{text}_{AGAIN}" if vectors == AGAIN else text)


@runtime_checkable
class Selection(Protocol):
    """A rule for the buffer."""

    @property
    def embedded(self) -> str:
        """What the device embeds of every exchange, a value of `Text`; it pays for the pass."""
        ...

    def keep(
        self,
        held: Sequence[Item],
        arrived: Sequence[Reading],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Item, ...]:
        """Returns what to hold from now on, in time order, within `quota_bytes`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fifo:
    """Keeps the newest exchanges."""

    @property
    def embedded(self) -> str:
        """What the device embeds."""
        return Text.NOTHING

    def keep(
        self,
        held: Sequence[Item],
        arrived: Sequence[Reading],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Item, ...]:
        """Returns the longest run of newest exchanges that fits."""
        kept: list[Item] = []
        used = 0
        for item in reversed(in_time((*held, *_bare(arrived)))):
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

    @property
    def embedded(self) -> str:
        """What the device embeds."""
        return Text.NOTHING

    def keep(
        self,
        held: Sequence[Item],
        arrived: Sequence[Reading],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Item, ...]:
        """Returns those of lowest priority number; what alone is too large is passed over."""
        kept: list[tuple[float, int, Item]] = []
        used = 0
        for item in in_time((*held, *_bare(arrived))):
            if item.size_bytes > quota_bytes:
                continue
            heappush(kept, (-priority(item.exchange), item.order, item))
            used += item.size_bytes
            while used > quota_bytes:
                used -= heappop(kept)[2].size_bytes
        return in_time(entry[2] for entry in kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomReplace:
    """Takes every exchange in and drops random ones of those held: the usual random rival.

    Unlike a reservoir it forgets: the chance to be still there falls with age.
    """

    @property
    def embedded(self) -> str:
        """What the device embeds."""
        return Text.NOTHING

    def keep(
        self,
        held: Sequence[Item],
        arrived: Sequence[Reading],
        quota_bytes: int,
        priority: Priority,
    ) -> tuple[Item, ...]:
        """Returns what is left; what alone is too large is passed over."""
        kept = list(shrunk(held, quota_bytes, priority))
        used = total_bytes(kept)
        for item in in_time(_bare(arrived)):
            if item.size_bytes > quota_bytes:
                continue
            used += item.size_bytes
            if used > quota_bytes:
                going = shuffled(kept, priority(item.exchange))
                kept = without(kept, going, used - quota_bytes)
            kept.append(item)
            used = total_bytes(kept)
        return in_time(kept)


def shrunk(held: Sequence[Item], quota_bytes: int, priority: Priority) -> tuple[Item, ...]:
    """Returns held items within a quota that may have become smaller, without random ones."""
    kept = list(in_time(held))
    used = total_bytes(kept)
    while used > quota_bytes:
        gone = max(kept, key=lambda item: (priority(item.exchange), item.order))
        kept.remove(gone)
        used -= gone.size_bytes
    return tuple(kept)


def without(items: Sequence[Item], going: Sequence[Item], least_bytes: int) -> list[Item]:
    """Returns items without the first of those `going` that free `least_bytes` together."""
    gone: set[int] = set()
    for item in going:
        if least_bytes <= 0:
            break
        gone.add(item.order)
        least_bytes -= item.size_bytes
    return [item for item in items if item.order not in gone]


def shuffled(values: Sequence[T], number: float) -> list[T]:
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


def _bare(arrived: Sequence[Reading]) -> list[Item]:
    return [Item(exchange=reading.exchange) for reading in arrived]
