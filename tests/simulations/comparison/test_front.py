"""The front, its ends, the winner, a budget and a target, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.comparison.found_runs import WORLD, FoundRun
from simulations.comparison.front import (
    BUDGET,
    TARGET,
    RunComparison,
    compare_settings,
    find_for_target,
    find_within_budget,
    get_joules,
    get_quality,
    read_limit,
)
from simulations.comparison.sentences import (
    answer_budget,
    answer_target,
    conclude_comparison,
    describe_front,
    list_notes,
)
from tests.simulations.comparison.made_runs import make_found

FOUR = {"dear": (100.0, 0.8), "waste": (120.0, 0.7), "middle": (60.0, 0.7), "cheap": (20.0, 0.5)}
"""Joules and quality by setting: waste is dominated by dear, which is better for less."""


def compared(
    points: dict[str, tuple[float, float]], seeds: tuple[int, ...] = (1,)
) -> RunComparison:
    """Every device of a setting uses half the joules and has the same quality."""
    return compare_settings(
        [
            make_found(seed, {"x": ([joules / 2] * 2, [quality] * 2)}, {"n": name})
            for name, (joules, quality) in points.items()
            for seed in seeds
        ]
    )


def name_of(line: Any) -> str | None:  # noqa: ANN401
    return None if line is None else line.name.partition("=")[2]


def test_the_front_holds_what_nothing_else_beats() -> None:
    found = compared(FOUR)
    assert [name_of(line) for line in found.front] == ["cheap", "middle", "dear"]
    assert name_of(found.dominated["x n=waste"]) == "dear"
    assert (name_of(found.best), name_of(found.cheapest)) == ("dear", "cheap")
    assert describe_front(found) == [
        "On the front of quality and energy: x n=cheap (least energy), x n=middle, x n=dear "
        "(best quality).",
        "Dominated, of no better quality for no less energy: x n=waste by x n=dear.",
    ]


def test_equals_are_on_the_front_together() -> None:
    points = {
        "a": ([5, 5], [0.5, 0.5]),
        "b": ([4, 6], [0.6, 0.4]),
        "c": ([5, 5], [0.4, 0.4]),
        "d": ([5, 6], [0.5, 0.5]),
    }
    found = compare_settings(
        [make_found(1, {"x": arm}, {"n": name}) for name, arm in points.items()]
    )
    assert [name_of(line) for line in found.front] == ["a", "b"]
    assert name_of(found.dominated["x n=d"]) == "a"


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3),
        st.tuples(st.integers(1, 6), st.integers(0, 5)),
        min_size=1,
        max_size=7,
    )
)
def test_every_dominated_line_is_beaten_by_one_of_the_front(
    points: dict[str, tuple[int, int]],
) -> None:
    found = compared({name: (joules, share / 5) for name, (joules, share) in points.items()})
    assert found.front
    for name, other in found.dominated.items():
        line = next(line for line in found.lines if line.name == name)
        if other is None:
            assert not any(
                get_quality(one) >= get_quality(line) and get_joules(one) < get_joules(line)
                for one in found.lines
            )
        else:
            assert other in found.front
            assert get_quality(other) >= get_quality(line)
            assert get_joules(other) <= get_joules(line)


def test_a_cheaper_line_of_lower_quality_does_not_win() -> None:
    found = compared(FOUR)
    assert name_of(found.winner) == "dear"
    assert conclude_comparison(found) == (
        "x n=dear wins: it has the best quality, 80.0 % exact match [80.0, 80.0], for a "
        "simulated device energy of 100 J (50.0 to 200); each cheaper one on the front is shown to "
        "lose quality."
    )


def test_the_cheapest_line_without_a_shown_loss_wins() -> None:
    dear = {"x": ([30.0, 70.0], [0.9, 0.6])}
    cheap = {"x": ([15.0, 35.0], [0.6, 0.8])}
    found = compare_settings(
        [make_found(1, dear, {"n": "dear"}), make_found(1, cheap, {"n": "cheap"})]
    )
    # paired: -0.3 and +0.2, half the joules each
    assert name_of(found.winner) == "cheap"
    assert conclude_comparison(found) == (
        "x n=cheap wins: it needs 50.0 % [50.0, 50.0] less simulated device energy than "
        "x n=dear, the best in quality, at a change of -5.0 points of exact match "
        "[-30.0, +20.0]. A loss of quality is not shown, one of up to 30.0 points is not ruled out."
    )


def test_best_and_cheapest_in_one_wins_on_both_counts() -> None:
    told = conclude_comparison(compared({"a": (10, 0.5), "b": (20, 0.4)}))
    assert told == (
        "x n=a wins on both counts: no setting has a better quality, 50.0 % exact match "
        "[50.0, 50.0], or needs less device energy, 10.0 J (5.00 to 20.0) (simulated)."
    )


def test_a_line_that_cannot_be_judged_does_not_win() -> None:
    lonely = {name: {"x": ([joules], [quality])} for name, (joules, quality) in FOUR.items()}
    found = compare_settings([make_found(1, arm, {"n": name}) for name, arm in lonely.items()])
    assert name_of(found.winner) == "dear"
    assert "too few devices in common tell whether x n=cheap and x n=middle would lose" in (
        conclude_comparison(found)
    )


@pytest.mark.parametrize(
    ("budget_j", "expected"),
    [(19.9, None), (20.0, "cheap"), (99.0, "middle"), (100.0, "dear"), (1e9, "dear")],
)
def test_a_budget_buys_the_best_quality_at_or_under_it(
    budget_j: float, expected: str | None
) -> None:
    assert name_of(find_within_budget(compared(FOUR).lines, budget_j)) == expected


@pytest.mark.parametrize(
    ("quality", "expected"), [(0.2, "cheap"), (0.5, "cheap"), (0.7, "middle"), (0.81, None)]
)
def test_a_target_is_reached_by_the_cheapest(quality: float, expected: str | None) -> None:
    assert name_of(find_for_target(compared(FOUR).lines, quality)) == expected


def test_answers_are_told_and_so_is_that_there_is_none() -> None:
    found = compared(FOUR)
    assert answer_budget(found, 70) == (
        "At or under 70.0 J, x n=middle has the best quality: 70.0 % exact match [70.0, 70.0], "
        "for 60.0 J (30.0 to 120) (simulated)."
    )
    assert answer_budget(found, 10) == (
        "No setting stays at or under 10.0 J: the cheapest, x n=cheap, needs 20.0 J (10.0 to 40.0)."
    )
    assert answer_target(found, 0.6) == (
        "The cheapest setting that reaches 60.0 % is x n=middle: it needs 60.0 J (30.0 to 120) "
        "(simulated) for 70.0 % exact match [70.0, 70.0]."
    )
    assert answer_target(found, 0.9) == (
        "No setting reaches 90.0 %: the best, x n=dear, has 80.0 % exact match [80.0, 80.0]."
    )


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("energy=5", BUDGET, r"--budget must be energy_j=VALUE"),
        ("energy_j=", BUDGET, r"--budget must be energy_j=VALUE"),
        ("energy_j=-3", BUDGET, r"above 0, got 'energy_j=-3'"),
        ("energy_j=inf", BUDGET, r"--budget must be"),
        ("0.5", TARGET, r"--target must be quality=VALUE"),
        ("quality=70", TARGET, r"exact match must be a share from 0 to 1, got 70"),
    ],
)
def test_a_limit_of_another_form_is_refused_in_one_sentence(
    text: str, name: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        read_limit(text, name, compared(FOUR))


def test_a_limit_is_read_and_none_is_none() -> None:
    assert read_limit("energy_j=2.5e3", BUDGET, compared(FOUR)) == 2500
    assert read_limit(None, TARGET, compared(FOUR)) is None


def two(**other: Any) -> list[FoundRun]:  # noqa: ANN401
    arms = {"retune": ([10.0, 20.0], [0.5, 0.6]), "reuse": ([5.0, 10.0], [0.5, 0.6])}
    return [
        make_found(1, arms, {"x": "1"}),
        make_found(1, **({"arms": arms, "typed": {"x": "2"}} | other)),
    ]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"rounds": 3}, "they last for different numbers of rounds: 2 or 3"),
        ({"priced_as": "big"}, "their joules are priced as different models: own or big"),
        ({"settings": {"x": "2", "data.spread": "1"}}, r"do not write the same \(data\)"),
        ({"settings": {"x": "2", WORLD: "null"}}, "different worlds of a study"),
        ({"arms": {"retune": ([1.0], [0.5])}}, "their fleets are not the same devices"),
    ],
)
def test_settings_of_other_devices_or_days_are_shown_without_a_winner(
    other: dict[str, Any], told: str
) -> None:
    found = compare_settings(two(**other))
    assert (found.best, found.winner, found.front) == (None, None, [])
    with pytest.raises(ValueError, match=rf"--budget has no answer\. These settings .*{told}"):
        read_limit("energy_j=1", BUDGET, found)
    assert conclude_comparison(found).endswith("compared with the reference of its own runs.")


def test_notes_tell_of_missing_seeds_and_of_too_few() -> None:
    arms = {"x": ([10.0, 20.0], [0.5, 0.6])}
    other = {"x": ([11.0, 20.0], [0.5, 0.6])}
    runs = [make_found(seed, arms, {"n": "a"}) for seed in (1, 2)]
    (note,) = list_notes(compare_settings([*runs, make_found(1, other, {"n": "b"})]))
    assert note.startswith("Not all settings ran with the same seeds")
    (note,) = list_notes(compare_settings(runs[:1]))
    assert note.startswith("Each setting ran with one seed")
    assert list_notes(compare_settings(runs)) == []
