"""Differences are paired by seed and device, and claims allow for their number; by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.comparison.contrasts import (
    can_show,
    contrast_lines,
    correct_holm,
    estimate_p_value,
)
from simulations.comparison.fold import Line, fold_arms, fold_seeds
from simulations.results.device_means import RESAMPLES
from tests.simulations.comparison.made_runs import Arm, make_found

SMALLEST = 2 / (RESAMPLES + 1)
WIDE = ([1.0, 100.0, 20.0, 7.0], [0.1, 0.9, 0.3, 0.6])
"""Devices that differ far more than settings do."""


def lines_of(arms: dict[str, dict[int, Arm]]) -> list[Line]:
    runs = [
        make_found(seed, {"only": arm}, {"codec": name})
        for name, seeds in arms.items()
        for seed, arm in seeds.items()
    ]
    return fold_arms(fold_seeds(runs))


def shifted(arm: Arm, share: float, points: float) -> Arm:
    return [share * one for one in arm[0]], [one + points for one in arm[1]]


def test_a_difference_that_every_device_shares_is_known_exactly() -> None:
    twice = {1: WIDE, 2: shifted(WIDE, 3, -0.05)}
    other = {seed: shifted(arm, 0.75, -0.01) for seed, arm in twice.items()}
    best, line = lines_of({"a": twice, "b": other})
    _, found = contrast_lines([best, line], best)
    assert found is not None
    assert found.saving["mean"] == pytest.approx(0.25)
    assert found.saving["ci95"] == pytest.approx([0.25, 0.25])
    assert found.quality_change["ci95"] == pytest.approx([-0.01, -0.01])
    # no resample is on the other side; two p-values: Holm doubles the smaller, the next keeps it
    assert (found.p_saving, found.p_quality) == pytest.approx((SMALLEST, SMALLEST))
    assert (found.holm_saving, found.holm_quality) == pytest.approx((2 * SMALLEST,) * 2)
    assert found.shows_saving
    assert found.shows_loss


def test_devices_pair_by_seed_and_number_and_by_nothing_else() -> None:
    # seed 2 stands in one line only; of seed 1 the line saves half on every device
    best, line = lines_of(
        {"a": {1: WIDE, 2: shifted(WIDE, 9, 0.4)}, "b": {1: shifted(WIDE, 0.5, 0)}}
    )
    _, found = contrast_lines([best, line], best)
    assert found is not None
    assert found.saving == {"mean": 0.5, "ci95": [0.5, 0.5]}
    assert found.quality_change == {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert found.holm_quality == 1.0


def test_lines_without_a_seed_in_common_are_not_judged() -> None:
    best, line = lines_of({"a": {1: WIDE}, "b": {2: WIDE}})
    _, found = contrast_lines([best, line], best)
    assert found is not None
    assert found.saving == {"mean": None, "ci95": [None, None]}
    assert not found.is_judged
    assert not found.shows_loss


def test_resampled_seeds_widen_an_interval_that_devices_alone_leave_narrow() -> None:
    # within a seed every device saves alike, between seeds they do not: 0.1 and 0.5
    twice: dict[int, Arm] = {seed: ([10.0] * 4, [0.5] * 4) for seed in (1, 2)}
    other = {1: shifted(twice[1], 0.9, 0), 2: shifted(twice[2], 0.5, 0)}
    best, line = lines_of({"a": twice, "b": other})
    _, found = contrast_lines([best, line], best)
    assert found is not None
    assert found.saving["mean"] == pytest.approx(0.3)
    assert found.saving["ci95"] == pytest.approx([0.1, 0.5])


def test_a_p_value_is_twice_the_smaller_share_of_resamples() -> None:
    # 2 of 9 at or below zero: 2 * (2 + 1) / (9 + 1)
    assert estimate_p_value(np.array([-1.0, 0.0, 1, 1, 1, 1, 1, 1, 1])) == pytest.approx(0.6)
    assert estimate_p_value(np.full(9, 2.0)) == pytest.approx(0.2)
    assert estimate_p_value(np.zeros(9)) == 1.0
    assert estimate_p_value(np.empty(0)) is None
    assert estimate_p_value(np.array([1.0, np.nan])) is None


def test_holm_by_hand() -> None:
    # ascending 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last is
    # raised to the one before; the unknown one does not count
    found = correct_holm([0.01, 0.04, None, 0.03, 0.005])
    assert found == [pytest.approx(0.03), pytest.approx(0.06), None, 0.06, 0.02]
    assert correct_holm([0.9, 0.8]) == [1.0, 1.0]
    assert correct_holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_between_no_correction_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    found = [value for value in correct_holm(p) if value is not None]
    assert len(found) == len(p)
    for before, after in zip(p, found, strict=True):
        assert before <= after <= min(1.0, len(p) * before) + 1e-12
    order = sorted(range(len(p)), key=lambda place: p[place])
    assert [found[place] for place in order] == sorted(found)


def test_so_many_comparisons_that_nothing_can_be_shown_are_told() -> None:
    # 2 of 2,001 is the smallest p-value, and 50 times that is just below 5 %
    assert can_show(50)
    assert not can_show(51)
