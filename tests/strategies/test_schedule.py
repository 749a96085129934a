"""Schedule: which version is out when, and from which plan it is made."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.schedule import ReleasePlan, Schedule

MILD = ReleasePlan(
    name="mild", kind="full", steps=3, learning_rate=1e-3, batch=4, window=8, conversations=5
)
SEVERE = replace(MILD, name="severe", kind="low_rank")


def test_a_release_comes_every_so_many_nights_and_the_first_is_there_from_the_start() -> None:
    schedule = Schedule(every=3, plans=(MILD,))
    assert [schedule.version(night) for night in range(8)] == [0, 0, 0, 1, 1, 1, 2, 2]


@settings(derandomize=True)
@given(every=st.integers(1, 9), night=st.integers(0, 99))
def test_versions_never_go_back_and_never_skip(every: int, night: int) -> None:
    schedule = Schedule(every=every, plans=(MILD,))
    assert 0 <= schedule.version(night + 1) - schedule.version(night) <= 1


def test_the_last_plan_repeats() -> None:
    schedule = Schedule(every=1, plans=(MILD, SEVERE))
    assert [schedule.plan(version) for version in range(1, 5)] == [MILD, SEVERE, SEVERE, SEVERE]


def test_release_0_is_the_model_as_it_is_unless_a_plan_makes_it() -> None:
    assert Schedule(every=1, plans=(MILD,)).plan(0) is None
    assert Schedule(every=1, plans=(MILD,), initial=SEVERE).plan(0) == SEVERE


def test_tokens_are_steps_times_windows_by_hand() -> None:
    assert MILD.tokens == 3 * 4 * 8


def test_a_schedule_without_nights_or_plans_is_refused() -> None:
    with pytest.raises(ValueError, match="every must be >= 1 night, got 0"):
        Schedule(every=0, plans=(MILD,))
    with pytest.raises(ValueError, match="at least one plan, got none"):
        Schedule(every=1, plans=())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "partial"),
        ("steps", 0),
        ("batch", 0),
        ("window", 0),
        ("conversations", 0),
        ("rank", 0),
        ("top_layers", 0),
        ("learning_rate", 0.0),
        ("vendor", 1.1),
        ("paraphrases", -0.1),
    ],
)
def test_a_plan_that_trains_nothing_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be .* got {value!r}$"):
        replace(MILD, **{field: value})
