"""Claims about conclusions: a sign is told where it differs between runs, and only there."""

from __future__ import annotations

import pytest

from simulations.report.compare import ComparedArm, find_changed_conclusions, get_sign

NOTHING = {"mean": 0.0, "ci95": [0.0, 0.0]}


def row(run: str, arm: str, energy_j: float, saving: tuple[float, float]) -> ComparedArm:
    return ComparedArm(
        run=run,
        overrides=(),
        arm=arm,
        reference="retune",
        metric="exact_match",
        priced_as="own",
        quality=NOTHING,
        energy_j=energy_j,
        energy_low_j=None,
        energy_high_j=None,
        saving={"mean": sum(saving) / 2, "ci95": list(saving)},
        saving_without_serving=NOTHING,
        quality_difference=NOTHING,
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.2, "+"), (-0.2, -0.1, "-"), (-0.1, 0.1, "0"), (0.0, 0.1, "0"), (None, None, "?")],
)
def test_a_sign_is_sure_where_the_interval_leaves_zero(
    low: float | None, high: float | None, expected: str
) -> None:
    assert get_sign({"mean": 0.0, "ci95": [low, high]}) == expected


def test_runs_that_agree_change_nothing() -> None:
    rows = [row(run, arm, 5.0, (0.1, 0.2)) for run in "ab" for arm in ("retune", "reuse")]
    assert find_changed_conclusions(rows) == []


def test_what_changes_is_told_with_the_sign_of_every_run() -> None:
    rows = [
        row("a", "retune", 5.0, (0.0, 0.0)),
        row("a", "reuse", 4.0, (0.1, 0.2)),
        row("b", "retune", 5.0, (0.0, 0.0)),
        row("b", "reuse", 6.0, (-0.3, -0.1)),
        row("b", "only_here", 1.0, (0.8, 0.9)),
    ]
    assert find_changed_conclusions(rows) == [
        "reuse saves energy: a +, b -",
        "retune uses more energy than reuse: a +, b -",
    ]
