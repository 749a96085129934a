"""Settings are called by what was typed, and by what tells them apart alone."""

from __future__ import annotations

from typing import Any

from simulations.comparison.fold import fold_arms, fold_seeds
from simulations.comparison.found_runs import FoundRun
from simulations.comparison.typed_names import list_differences
from tests.simulations.comparison.made_runs import make_found

ARM = ([1.0, 2.0], [0.5, 0.6])


def run(typed: dict[str, str], settings: dict[str, str], **options: str) -> FoundRun:
    return make_found(1, {"retune": ARM}, typed, settings, options)


def test_an_option_is_called_as_it_was_typed_and_never_by_its_class() -> None:
    runs = [
        run({"adaptation": "always_reuse"}, {"adaptation._target_": "x.AlwaysReuse"}),
        run({"adaptation": "canary"}, {"adaptation._target_": "x.Canary", "adaptation.most": "8"}),
    ]
    assert list_differences(runs) == [{"adaptation": "always_reuse"}, {"adaptation": "canary"}]


def test_an_option_that_was_not_typed_is_the_one_that_was_taken() -> None:
    runs = [
        run({"link": "lte"}, {"link.name": "lte", "rounds": "3"}, link="lte"),
        run({}, {"link.name": "wifi", "rounds": "3"}, link="wifi"),
    ]
    assert list_differences(runs) == [{"link": "lte"}, {"link": "wifi"}]


def test_a_field_is_told_beside_its_option_only_where_it_differs() -> None:
    typed: list[dict[str, str]] = [
        {"adaptation": "edgetune", "adaptation.kappa": kappa} for kappa in ("0.1", "0.2")
    ]
    runs = [run(one, {"adaptation.kappa": one["adaptation.kappa"]}) for one in typed]
    assert list_differences(runs) == [{"adaptation.kappa": "0.1"}, {"adaptation.kappa": "0.2"}]


def test_a_group_that_follows_another_one_is_left_out() -> None:
    runs = [
        run(
            {"model": name},
            {"model.path": name, "release.every": every, "data.x": "1"},
            model=name,
            release=name,
        )
        for name, every in (("pocket", "2"), ("pocket_v1", "4"))
    ]
    assert list_differences(runs) == [{"model": "pocket"}, {"model": "pocket_v1"}]


def test_what_is_the_same_everywhere_is_not_told() -> None:
    runs = [
        run({"rounds": "3", "tuning.steps": steps}, {"rounds": "3", "tuning.steps": steps})
        for steps in ("4", "8")
    ]
    assert list_differences(runs) == [{"tuning.steps": "4"}, {"tuning.steps": "8"}]


def test_settings_without_a_record_of_what_was_typed_are_told_by_their_keys() -> None:
    runs = [run({}, {"a.b": "1"}), run({}, {"a.b": "2", "layers": "[1]"})]
    assert list_differences(runs) == [
        {"a.b": "1", "layers": "absent"},
        {"a.b": "2", "layers": "[1]"},
    ]


def test_the_chosen_arm_has_all_its_choices_and_other_arms_have_none() -> None:
    typed: list[dict[str, Any]] = [
        {"codec": "int8", "adaptation": "canary", "tuning.steps": steps} for steps in ("4", "8")
    ]
    arms = {"retune": ARM, "canary+int8": ([3.0, 4.0], [0.5, 0.6])}
    runs = [make_found(1, arms, one) for one in typed[:1]]
    slower = {name: ([2 * joules for joules in arm[0]], arm[1]) for name, arm in arms.items()}
    runs.append(make_found(1, slower, typed[1]))
    assert [line.name for line in fold_arms(fold_seeds(runs))] == [
        "retune tuning.steps=4",
        "retune tuning.steps=8",
        "codec=int8 adaptation=canary tuning.steps=4",
        "codec=int8 adaptation=canary tuning.steps=8",
    ]
