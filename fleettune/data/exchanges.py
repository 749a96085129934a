"""Exchanges: one question with its answer, the unit of a user's stream, and who owns which.

A population answers for two groups that never mix: the users of the fleet, each a stream in
time order cut into days, and users outside the fleet, whose text a vendor may train on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One question with the answer that its user preferred.

    Attributes:
        question: What was asked or written.
        response: The preferred answer.
        day: Day of the simulation on which it happened; 0 is the first.
        order: Position in its user's stream, unique per user.
        domain: What it is about; empty where unknown.
    """

    question: str
    response: str
    day: int
    order: int
    domain: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes of the two texts as UTF-8, which is how a device stores them."""
        return len(self.question.encode()) + len(self.response.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One member of a closed set of answers, with the label values it stands for.

    Attributes:
        response: The wording, exactly as it stands in the exchanges.
        values: One number per label of the population (for example valence and arousal).
    """

    response: str
    values: tuple[float, ...]


class Population(Protocol):
    """Who lives in the fleet and what they say; a pure function of its configuration."""

    @property
    def users(self) -> int:
        """Number of users that the fleet may hold."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label values; empty for free text."""
        ...

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The closed set of answers where answers are labels; empty for free text."""
        ...

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        """Returns one user's exchanges of one day, in time order."""
        ...

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        """Returns conversations of users outside the fleet, for the vendor's training."""
        ...


def join_days(
    draw: Callable[[int], Sequence[Exchange]], day: int, history_days: int
) -> tuple[Exchange, ...]:
    """Returns a day of a stream that is drawn by calendar day; day 0 holds the history as well.

    Args:
        draw: Returns the exchanges of a calendar day, counted from 0.
        day: Day of the simulation.
        history_days: Calendar days that day 0 holds.
    """
    last = day + history_days - 1
    lived = range(last + 1) if day == 0 else range(last, last + 1)
    return tuple(replace(exchange, day=day) for calendar in lived for exchange in draw(calendar))
