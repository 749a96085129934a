"""A study's judge: claims against paired intervals, on rows made up by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from simulations.experiment.study_settings import Claim, StudySettings, World
from simulations.results.recorder import SCHEMA
from simulations.studies.judge import judge_claims
from simulations.study import pool_parts

CLAIM = Claim(
    claim="reuse_saves",
    measure="energy_saving",
    arm="reuse",
    against="retune",
    threshold=0.5,
    direction="above",
)


def made_up(arm: str, device: int, energy_j: float, exact_match: float) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SCHEMA, 0)
    words = {"arm": arm, "profile": "phone", "decision": "reuse", "reason": "test"}
    numbers = {"device": device, "energy_j": energy_j, "exact_match": exact_match}
    return {**row, **words, **numbers}


def rows(retune: list[tuple[float, float]], reuse: list[tuple[float, float]]) -> pl.DataFrame:
    """One night; per device joules and exact match of both arms."""
    made = [
        made_up(arm, device, *numbers)
        for arm, devices in (("retune", retune), ("reuse", reuse))
        for device, numbers in enumerate(devices)
    ]
    return pl.DataFrame(made, schema=SCHEMA)


# Every device uses 100 J and 25 J, so every resample saves 1 - 25 / 100 = 0.75; quality falls by
# 0.5 - 0.25 = 0.25 on every device.
EQUAL = rows([(100.0, 0.5)] * 4, [(25.0, 0.25)] * 4)


def verdict(frame: pl.DataFrame, claim: Claim) -> dict[str, Any]:
    (outcome,) = judge_claims({"": frame}, [claim], "exact_match")
    return outcome


def test_equal_devices_leave_no_doubt_by_hand() -> None:
    assert verdict(EQUAL, CLAIM) == {
        "claim": "reuse_saves",
        "estimate": 0.75,
        "ci95": [0.75, 0.75],
        "threshold": 0.5,
        "direction": "above",
        "holds": True,
    }
    quality = replace(CLAIM, measure="quality_difference", threshold=-0.2, direction="below")
    outcome = verdict(EQUAL, quality)
    assert (outcome["estimate"], outcome["ci95"]) == (-0.25, [-0.25, -0.25])
    assert outcome["holds"] is True


@pytest.mark.parametrize(
    ("direction", "threshold", "holds"),
    [
        ("above", 0.74, True),
        ("above", 0.75, False),  # the lower end must exceed the threshold
        ("above", 0.76, False),
        ("below", 0.76, True),
        ("below", 0.75, False),
        ("below", 0.74, False),
        ("at_most", 0.75, True),  # and may be reached here
        ("at_most", 0.74, False),
        ("not_above", 0.75, True),
        ("not_above", 0.76, True),
        ("not_above", 0.74, False),
    ],
)
def test_a_claim_holds_exactly_beyond_its_threshold(
    direction: str, threshold: float, holds: bool
) -> None:
    claim = replace(CLAIM, direction=direction, threshold=threshold)
    assert verdict(EQUAL, claim)["holds"] is holds


def test_joules_are_summed_before_they_are_compared_by_hand() -> None:
    # 1 - (10 + 90) / (100 + 100) = 0.5 ...
    frame = rows([(100.0, 0.5), (100.0, 0.5)], [(10.0, 0.5), (90.0, 0.5)])
    outcome = verdict(frame, CLAIM)
    assert outcome["estimate"] == 0.5
    # ... and a resample of two is one of (10, 10), (10, 90), (90, 90): from 0.1 to 0.9.
    assert outcome["ci95"] == pytest.approx([0.1, 0.9])


def test_a_claim_that_is_true_on_average_but_not_surely_does_not_hold() -> None:
    frame = rows([(100.0, 0.5), (100.0, 0.5)], [(10.0, 0.5), (50.0, 0.5)])
    outcome = verdict(frame, CLAIM)
    assert outcome["estimate"] == pytest.approx(0.7)
    assert outcome["estimate"] > outcome["threshold"]
    assert outcome["holds"] is False  # both drawn as (50, 50) saves 0.5, no more


def test_an_arm_that_costs_more_does_not_save() -> None:
    outcome = verdict(EQUAL, replace(CLAIM, arm="retune", against="reuse"))
    assert outcome["estimate"] == -3.0  # 1 - 100 / 25
    assert outcome["holds"] is False


def test_one_device_proves_nothing() -> None:
    single = rows([(100.0, 0.5)], [(1.0, 0.5)])
    for direction in ("above", "below", "at_most", "not_above"):
        outcome = verdict(single, replace(CLAIM, direction=direction))
        assert outcome["ci95"] == [None, None]
        assert outcome["holds"] is False


def test_claims_are_judged_in_order_and_the_order_of_rows_changes_nothing() -> None:
    claims = [CLAIM, replace(CLAIM, claim="other", direction="below")]
    forward = judge_claims({"": EQUAL}, claims, "exact_match")
    assert [outcome["claim"] for outcome in forward] == ["reuse_saves", "other"]
    assert judge_claims({"": EQUAL.reverse()}, claims, "exact_match") == forward


def test_a_claim_about_an_arm_that_did_not_run_is_refused() -> None:
    for changed in (replace(CLAIM, arm="oracle"), replace(CLAIM, against="oracle")):
        with pytest.raises(ValueError, match="claim reuse_saves is about arm 'oracle'"):
            judge_claims({"": EQUAL}, [changed], "exact_match")


def test_a_claim_without_a_known_measure_or_direction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"measure must be one of .*got 'joy'"):
        replace(CLAIM, measure="joy")
    with pytest.raises(ValueError, match=r"direction must be one of .*got 'up'"):
        replace(CLAIM, direction="up")


def test_a_column_is_summed_for_a_saving_and_averaged_for_a_difference_by_hand() -> None:
    frame = EQUAL.with_columns(
        tune_steps=pl.when(pl.col("arm") == "reuse").then(6).otherwise(24).cast(pl.Int64)
    )
    saving = replace(CLAIM, measure="saving", column="tune_steps")
    assert verdict(frame, saving)["ci95"] == [0.75, 0.75]  # 1 - 6 / 24
    difference = replace(CLAIM, measure="difference", column="tune_steps")
    assert verdict(frame, difference)["estimate"] == -18


def test_within_asks_for_the_whole_interval() -> None:
    near = replace(CLAIM, measure="quality_difference", direction="within", threshold=0.25)
    assert verdict(EQUAL, near)["holds"] is True  # the difference is -0.25 on every device
    assert verdict(EQUAL, replace(near, threshold=0.24))["holds"] is False


def test_what_it_takes_to_reach_a_quality_is_read_off_between_rungs_by_hand() -> None:
    # ours: 0.0 for 0 J, 0.5 for 100 J; theirs: 0.25 for 100 J at the top, so ours needs 50 J.
    nights = [("nothing", 0.0, 0.0), ("ours", 100.0, 0.5), ("theirs", 100.0, 0.25)]
    frame = pl.DataFrame(
        [made_up(arm, device, *numbers) for arm, *numbers in nights for device in range(4)],
        schema=SCHEMA,
    )
    claim = replace(
        CLAIM,
        measure="equal_quality_cost",
        column="energy_j",
        arm="ours",
        against="theirs",
        rungs=("nothing",),
    )
    outcome = verdict(frame, claim)
    assert (outcome["estimate"], outcome["ci95"]) == (0.5, [0.5, 0.5])
    never = replace(claim, arm="theirs", against="ours")
    assert verdict(frame, never)["estimate"] is None  # it never reaches 0.5
    assert verdict(frame, never)["holds"] is False


def test_a_claim_may_compare_two_worlds() -> None:
    worse = rows([(100.0, 0.25)] * 4, [(25.0, 0.25)] * 4)
    claim = replace(
        CLAIM, measure="quality_difference", arm="retune", against="retune", threshold=0.2
    )
    across = replace(claim, world="bursty", against_world="even")
    (outcome,) = judge_claims({"bursty": EQUAL, "even": worse}, [across], "exact_match")
    assert outcome["estimate"] == 0.25


def test_claims_about_unknown_worlds_arms_and_columns_are_refused_before_the_run() -> None:
    with pytest.raises(ValueError, match="about world 'mars'; known are"):
        StudySettings(name="s", claims=(replace(CLAIM, world="mars"),))
    study = StudySettings(name="s", worlds=(World(name="a"),), claims=(CLAIM,), world="a")
    study.check_arms(["retune", "reuse"])
    with pytest.raises(ValueError, match="about arm 'reuse', which does not run"):
        study.check_arms(["retune"])
    with pytest.raises(ValueError, match="column must be given"):
        replace(CLAIM, measure="saving")
    with pytest.raises(ValueError, match=r"one of numbers in rows\.parquet, got 'joy'"):
        verdict(EQUAL, replace(CLAIM, measure="saving", column="joy"))


def test_a_part_without_a_catalogue_joins_those_with_one() -> None:
    with_one = pl.DataFrame({"device": [0, 1], "start_nll": [1.0, 2.0]})
    pooled = pool_parts([with_one, pl.DataFrame({"device": [2]})])
    assert pooled.to_dict(as_series=False) == {"device": [0, 1, 2], "start_nll": [1.0, 2.0, None]}
