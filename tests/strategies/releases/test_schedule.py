"""Schedule: which version is out when, and from which plan it is made."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.releases.schedule import ReleasePlan, Schedule

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


QUANTISED = ReleasePlan(name="small", kind="quantised", bits=8)
SAME = ReleasePlan(name="same", kind="reparametrised", scale=2.0)
THEIRS = ReleasePlan(name="theirs", kind="external", path="/models/theirs")


@pytest.mark.parametrize(
    ("plan", "field", "value"),
    [
        (MILD, "rank", 8),
        (MILD, "scale", 2.0),
        (SEVERE, "bits", 4),
        (QUANTISED, "steps", 3),
        (QUANTISED, "vendor", 0.5),
        (SAME, "embeddings", True),
        (SAME, "learning_rate", 1e-3),
        (THEIRS, "conversations", 5),
        (replace(MILD, kind="independent"), "path", "/models/theirs"),
    ],
)
def test_a_field_that_the_kind_does_not_read_is_refused(
    plan: ReleasePlan, field: str, value: object
) -> None:
    told = rf"{field} must be left out for kind {plan.kind}, which reads .* only, got {value!r}$"
    with pytest.raises(ValueError, match=told):
        replace(plan, **{field: value})


@pytest.mark.parametrize(
    ("plan", "field", "value"),
    [
        (SAME, "scale", 0.0),
        (SAME, "scale", -2.0),
        (SAME, "scale", 65.0),
        (SAME, "scale", 1.0),
        (SAME, "scale", float("nan")),
        (QUANTISED, "bits", 0),
        (QUANTISED, "bits", 6),
        (THEIRS, "path", ""),
    ],
)
def test_a_rewritten_release_says_how(plan: ReleasePlan, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"release {plan.name}: {field} must be .* got"):
        replace(plan, **{field: value})


def test_what_trains_nothing_trains_on_no_tokens() -> None:
    assert [plan.tokens for plan in (QUANTISED, SAME, THEIRS)] == [0, 0, 0]
    assert not any(plan.is_trained for plan in (QUANTISED, SAME, THEIRS))


def test_devices_are_offered_full_releases_unless_asked_otherwise() -> None:
    assert Schedule(every=1, plans=(MILD,)).payload == "full"
    with pytest.raises(ValueError, match=r"release.payload must be one of .* got 'delta'"):
        Schedule(every=1, plans=(MILD,), payload="delta")
