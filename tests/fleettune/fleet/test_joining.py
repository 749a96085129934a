"""Joining: who is there in which round, by hand; joins and offers travel and change no default."""

from __future__ import annotations

import pytest

from fleettune.fleet.joining import FROM_THE_START, Join, Joining

PARTS = (Join(round=2, share=0.25), Join(round=5, share=0.5, days=1))
FLEET = Joining(devices=8, parts=PARTS)


def test_the_registry_is_in_the_order_of_joining() -> None:
    # 8 devices: 2 of them join in round 2, 4 in round 5, 2 were there from the start
    assert [FLEET.count_joined(number) for number in range(7)] == [2, 2, 4, 4, 4, 8, 8]
    assert [FLEET.part_of(device) for device in range(8)] == [None] * 2 + [PARTS[0]] * 2 + [
        PARTS[1]
    ] * 4


def test_nobody_joins_by_default() -> None:
    assert FROM_THE_START.part_of(7) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [({"round": 0, "share": 0.5}, "round"), ({"round": 1, "share": 1.0}, "share")],
)
def test_a_wrong_join_is_told(given: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Join(**given)  # pyright: ignore[reportArgumentType] - that is the test


def test_somebody_must_be_there_in_the_first_round() -> None:
    with pytest.raises(ValueError, match="first round"):
        Joining(devices=2, parts=(Join(round=1, share=0.9),))
    with pytest.raises(ValueError, match="ascending"):
        Joining(devices=9, parts=(Join(round=3, share=0.1), Join(round=1, share=0.1)))
