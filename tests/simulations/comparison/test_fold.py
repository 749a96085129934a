"""Runs that differ in their seed alone are one line, an equal reference is listed once."""

from __future__ import annotations

import pytest

from simulations.comparison.fold import fold_arms, fold_seeds
from simulations.comparison.found_runs import FoundRun
from tests.simulations.comparison.made_runs import Arm, make_found

TUNED: dict[int, Arm] = {1: ([10, 30], [0.5, 0.7]), 2: ([20, 40], [0.4, 0.6])}
REUSED: dict[int, Arm] = {1: ([5, 15], [0.5, 0.5]), 2: ([10, 20], [0.2, 0.4])}
EDITED: dict[int, Arm] = {1: ([8, 24], [0.5, 0.6]), 2: ([16, 32], [0.4, 0.5])}


def sweep(seeds: tuple[int, ...] = (1, 2)) -> list[FoundRun]:
    return [
        make_found(seed, {"retune": TUNED[seed], rule: arm[seed]}, {"adaptation": rule})
        for seed in seeds
        for rule, arm in (("reuse", REUSED), ("edit", EDITED))
    ]


def test_runs_that_differ_in_their_seed_are_one_line_with_means_over_it() -> None:
    lines = {line.arm: line for line in fold_arms(fold_seeds(sweep()))}
    reuse = lines["reuse"]
    assert list(reuse.runs) == [1, 2]
    # (0.5 + 0.5 + 0.2 + 0.4) / 4; its seeds have 0.5 and 0.3
    assert reuse.quality["mean"] == pytest.approx(0.4)
    assert reuse.quality_by_seed == pytest.approx({1: 0.5, 2: 0.3})
    assert reuse.worst_quality == pytest.approx(0.3)
    # 5 + 15 and 10 + 20 joules, the mean is 25; half and twice of it are low and high
    assert reuse.energy_by_seed == {1: 20, 2: 30}
    assert reuse.energy_j == (25, 12.5, 50)
    # 50 of the 100 joules of the reference; half for every device, so the interval is a point
    assert reuse.saving == {"mean": 0.5, "ci95": [0.5, 0.5]}
    # 0 once and -0.2 three times
    assert reuse.quality_change["mean"] == pytest.approx(-0.15)


def test_a_reference_that_is_the_same_in_several_runs_is_listed_once() -> None:
    lines = fold_arms(fold_seeds(sweep()))
    assert [line.name for line in lines] == ["retune", "adaptation=reuse", "adaptation=edit"]
    assert lines[0].settings == ("adaptation=reuse", "adaptation=edit")
    assert lines[0].energy_j[0] == 50


def test_a_reference_that_the_setting_changes_is_listed_for_each() -> None:
    runs = [
        make_found(1, {"retune": arm}, {"tuning.steps": steps})
        for steps, arm in (("4", TUNED[1]), ("8", TUNED[2]))
    ]
    names = [line.name for line in fold_arms(fold_seeds(runs))]
    assert names == ["retune tuning.steps=4", "retune tuning.steps=8"]


def test_an_arm_that_did_the_same_in_some_settings_is_called_by_all_of_them() -> None:
    runs = [
        make_found(1, {"retune": arm}, {"tuning.steps": steps})
        for steps, arm in (("4", TUNED[1]), ("8", TUNED[1]), ("16", TUNED[2]))
    ]
    names = [line.name for line in fold_arms(fold_seeds(runs))]
    assert names == ["retune tuning.steps=4,8", "retune tuning.steps=16"]


def test_the_order_of_runs_changes_no_number() -> None:
    lines, turned = (
        {line.name: line for line in fold_arms(fold_seeds(runs))}
        for runs in (sweep(), sweep((2, 1))[::-1])
    )
    for name, line in lines.items():
        assert turned[name].quality == line.quality
        assert turned[name].saving == line.saving


def test_a_repeated_run_counts_once_and_a_contradicting_one_is_refused() -> None:
    runs = sweep()
    assert len(fold_arms(fold_seeds([*runs, *runs]))) == 3
    other = make_found(1, {"retune": TUNED[2], "reuse": REUSED[1]}, {"adaptation": "reuse"})
    with pytest.raises(ValueError, match=r"same settings and seed 1 but not the same rows"):
        fold_seeds([*runs, other])


def test_an_unknown_quality_of_one_seed_leaves_the_worst_unknown() -> None:
    blind = make_found(2, {"retune": ([1, 1], [float("nan")] * 2)}, {"adaptation": "reuse"})
    blind.summary["arms"]["retune"]["quality"]["mean"] = None
    known = make_found(1, {"retune": TUNED[1]}, {"adaptation": "reuse"})
    (line,) = fold_arms(fold_seeds([known, blind]))
    assert line.worst_quality is None
    assert line.quality["mean"] == pytest.approx(0.6)
