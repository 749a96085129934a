"""Text of users outside the fleet is taken from one user after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleettune.data.exchanges import Answer, Exchange, take_in_turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Few:
    """A population with a few talkative users outside the fleet, as tables have."""

    said: tuple[int, ...]
    users: int = 10
    labels: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        return ()

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        return [
            tuple(
                Exchange(question=f"{user}.{place}", response="a", day=0, order=place)
                for place in range(length)
            )
            for user, length in enumerate(self.said[:count])
        ]


def test_users_outside_speak_in_turn() -> None:
    found = take_in_turn(Few(said=(3, 1, 2)), 5, 1)
    assert [exchange.question for exchange in found] == ["0.0", "1.0", "2.0", "0.1", "2.1"]


def test_too_little_text_gives_what_there_is() -> None:
    assert take_in_turn(Few(said=()), 16, 0) == []
    assert len(take_in_turn(Few(said=(9, 6)), 16, 0)) == 15
