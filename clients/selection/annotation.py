"""The budget of preferred answers that a device asks its user for, and the exchanges it asks about.

A device asks only about exchanges that its selection keeps. Without a preferred answer an exchange
takes part in selection, but no tune, retrieval or prior uses it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from clients.selection.buffer import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A budget of questions to the user.

    Attributes:
        per_1000: Questions per 1,000 exchanges of the stream; None asks about all that is kept.
    """

    per_1000: float | None = None

    def __post_init__(self) -> None:
        if self.per_1000 is not None and not 0 <= self.per_1000 <= 1000:
            raise ValueError(
                f"annotation.per_1000 must be null or from 0 to 1000, got {self.per_1000}"
            )

    def left(self, seen: int, asked: int) -> int | None:
        """Returns how many questions a device may ask now.

        Args:
            seen: Exchanges that arrived so far.
            asked: Questions asked so far.
        """
        if self.per_1000 is None:
            return None
        return max(0, math.floor(self.per_1000 * seen / 1000) - asked)


def ask(
    kept: Sequence[Item], before: Mapping[int, bool], left: int | None
) -> tuple[tuple[Item, ...], int]:
    """Returns the kept items with their answers, and how many questions that took.

    The newest are asked about first. Whether an exchange was asked about before is read from
    `before`, not from its note, so no selection can make an answer up.

    Args:
        kept: What the selection kept, in time order.
        before: Whether it was asked about each exchange held before, by its order.
        left: Questions that may be asked; None for no limit.
    """
    count, answered = 0, list[Item]()
    for item in reversed(kept):
        asked = before.get(item.order, False)
        if not asked and (left is None or count < left):
            asked, count = True, count + 1
        answered.append(replace(item, note=replace(item.note, asked=asked)))
    return tuple(reversed(answered)), count
