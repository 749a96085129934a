"""Claims about conclusions: a sign is told where it differs between settings, and only there."""

from __future__ import annotations

import pytest

from simulations.comparison.fold import Line, fold_arms, fold_seeds
from simulations.comparison.sentences import find_changed_conclusions, get_sign
from tests.simulations.comparison.made_runs import Arm, make_found

BASE: Arm = ([10.0, 20.0], [0.5, 0.5])
SAVES: Arm = ([5.0, 10.0], [0.5, 0.5])
WASTES: Arm = ([20.0, 40.0], [0.5, 0.5])


def lines_of(*reuse: Arm) -> list[Line]:
    runs = [
        make_found(1, {"retune": BASE, "reuse": arm}, {"n": str(place)})
        for place, arm in enumerate(reuse)
    ]
    return fold_arms(fold_seeds(runs))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.2, "+"), (-0.2, -0.1, "-"), (-0.1, 0.1, "0"), (0.0, 0.1, "0"), (None, None, "?")],
)
def test_a_sign_is_sure_where_the_interval_leaves_zero(
    low: float | None, high: float | None, expected: str
) -> None:
    assert get_sign({"mean": 0.0, "ci95": [low, high]}) == expected


def test_settings_that_agree_change_nothing() -> None:
    slower = ([4.0, 9.0], [0.5, 0.5])
    assert find_changed_conclusions(lines_of(SAVES, slower)) == []
    assert find_changed_conclusions(lines_of(SAVES, SAVES)) == []


def test_what_changes_is_told_with_the_sign_of_every_setting() -> None:
    assert find_changed_conclusions(lines_of(SAVES, WASTES, SAVES)) == [
        "reuse saves energy: n=0 +; n=2 +; n=1 -",
        "reuse saves energy, serving left out: n=0 +; n=2 +; n=1 -",
    ]


def test_where_no_arm_is_in_two_settings_nothing_could_change() -> None:
    assert find_changed_conclusions(lines_of(SAVES)) is None
