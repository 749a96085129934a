"""Claims about decisions: areas, lines, shares and labels by hand, on rows made up."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from simulations.experiment.study_settings import Claim
from simulations.results.derived_columns import RETUNING_J, SCORE, add_decision_columns
from simulations.results.recorder import SCHEMA
from simulations.studies.claim_measures import (
    estimate_above_line,
    estimate_retained,
)
from simulations.studies.judge import judge_claims, judge_everywhere
from simulations.studies.study_tables import (
    tabulate_grid,
    tabulate_retunes,
    tabulate_scores,
)
from strategies.learning.guidance_rules import Unguided

MARGIN = 0.05


def arm(spent: float, quality: float, devices: int = 6) -> pl.DataFrame:
    """Devices that all spend the same and have one quality."""
    return pl.DataFrame(
        {
            "device": list(range(devices)),
            "retuned": [spent] * devices,
            "exact_match": [quality] * devices,
            "nll": [1 - quality] * devices,
            "decided": [4] * devices,
        }
    )


REUSE, RETUNE, NONE = arm(0, 0.4), arm(4, 0.8), arm(0, 0.1)


@pytest.mark.parametrize(
    ("spent", "quality", "above"),
    [
        (2, 0.7, 0.1),  # the chord is at 0.4 + 2 / 4 * 0.4 = 0.6
        (2, 0.6, 0.0),
        (1, 0.45, -0.05),
        (5, 0.8, 0.0),  # beyond its end a line is flat: who spends more must be better
        (0, 0.4, 0.0),
    ],
)
def test_a_place_above_the_chord_by_hand(spent: float, quality: float, above: float) -> None:
    found = estimate_above_line(arm(spent, quality), [REUSE, RETUNE], "retuned", "exact_match")
    assert found["mean"] == pytest.approx(above)
    assert found["ci95"] == pytest.approx([above, above])


def test_a_line_through_more_arms_compares_at_equal_retunes_in_any_order() -> None:
    rival = arm(2, 0.75)
    for line in ([REUSE, rival, RETUNE], [RETUNE, REUSE, rival]):
        # at one retune the line is half way from 0.4 to 0.75
        found = estimate_above_line(arm(1, 0.6), line, "retuned", "exact_match")
        assert found["mean"] == pytest.approx(0.6 - 0.575)


def test_what_is_retained_by_hand() -> None:
    # losses 0.9 without, 0.2 retuned, 0.6 reused: 0.3 of 0.7
    found = estimate_retained((REUSE, NONE, RETUNE), "nll")
    assert found["mean"] == pytest.approx(0.3 / 0.7)
    assert estimate_retained((RETUNE, NONE, RETUNE), "nll")["mean"] == 1.0
    # earlier all of it was: 0.3 of 0.7 less 1
    fell = estimate_retained((REUSE, NONE, RETUNE), "nll", (RETUNE, NONE, RETUNE))
    assert fell["mean"] == pytest.approx(0.3 / 0.7 - 1)
    # in a world in which nobody gains there is nothing to retain
    assert estimate_retained((NONE, NONE, NONE), "nll")["mean"] is None


def night(
    name: str, device: int, release: int, decision: str, **numbers: float | None
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SCHEMA, 0)
    row |= {"arm": name, "device": device, "round": release, "release": release}
    row |= {"profile": f"phone_{device % 2}", "attendance": "present", "payload": "full"}
    row |= {"decision": decision, "reason": "first_patch" if release == 0 else "test"}
    row |= dict.fromkeys(("drift", "strength", "score", "retune_gain"))
    row |= {"energy_j": 20.0, "energy_j_check": 1.0, "exact_match": 0.5, "nll": 0.5}
    retuned = decision == "retune"
    row |= {"energy_j_tune": 9.0, "exact_match": 0.6} if retuned else {}
    return row | numbers


RELEASES = pl.DataFrame(
    {"version": [0, 1, 2], "name": ["base", "mild", "severe"], "kind": ["initial", "full", "full"]}
)


def fleet(devices: int = 40) -> pl.DataFrame:
    """A first tune, a mild release that one in ten retunes for, a severe one: three in four."""
    rows: list[dict[str, Any]] = []
    for device in range(devices):
        chosen = {1: device % 10 == 0, 2: device % 4 != 0}
        rows.append(night("ours", device, 0, "retune"))
        rows.append(night("always_retune", device, 0, "retune"))
        for release, retunes in chosen.items():
            gain = 0.2 if retunes else 0.0
            seen = {"drift": 0.1 * release, "strength": 1.0, "retune_gain": gain}
            word = "retune" if retunes else "reuse"
            rows.append(night("ours", device, release, word, **seen))
            rows.append(night("always_retune", device, release, "retune"))
    return add_decision_columns(pl.DataFrame(rows, schema=SCHEMA), RELEASES, Unguided())


def test_first_tunes_are_no_decisions_and_their_joules_no_retuning() -> None:
    frame = fleet().filter(pl.col("arm") == "ours")
    assert frame.filter(pl.col("release") == 0)["decided"].sum() == 0
    assert frame.filter(pl.col("release") == 0)[RETUNING_J].sum() == 0
    # four of forty retune for 9 J, all of them check for 1 J
    assert frame.filter(pl.col("release_name") == "mild")[RETUNING_J].sum() == 4 * 9 + 40


def test_a_score_before_any_fit_is_the_prior_of_drift_over_strength() -> None:
    rows = [night("ours", 0, 1, "reuse", drift=0.05, strength=1.0, score=0.05)]
    rows += [night("ours", 1, 1, "reuse", drift=0.5, strength=1.0, score=0.5)]
    rows += [night("ours", 2, 1, "reuse", drift=0.5, strength=1.0, score=0.25)]
    rows += [night("released", 0, 1, "reuse", drift=0.5, strength=1.0, score=None)]
    frame = add_decision_columns(pl.DataFrame(rows, schema=SCHEMA), RELEASES, Unguided())
    # 2 log odds per decade: half at 0.05, 1 / (1 + e^-2) at ten times that; a probability stays
    high = 1 / (1 + math.exp(-2))
    assert frame[SCORE].to_list() == pytest.approx([0.5, high, 0.25, high])


CLAIM = Claim(
    claim="mild", measure="retune_rate", arm="ours", threshold=0.2, direction="below",
    releases=("mild",),
)  # fmt: skip


def test_a_claim_about_releases_sees_those_alone() -> None:
    (outcome,) = judge_claims({"": fleet()}, [CLAIM], "exact_match")
    assert outcome["estimate"] == pytest.approx(0.1)
    (severe,) = judge_claims({"": fleet()}, [replace(CLAIM, releases=("severe",))], "exact_match")
    assert severe["estimate"] == pytest.approx(0.75)
    assert severe["holds"] is False


def test_claims_of_one_arm_take_no_other_and_the_others_need_one() -> None:
    with pytest.raises(ValueError, match="against must be given unless"):
        replace(CLAIM, against="always_retune")
    with pytest.raises(ValueError, match="against must be given unless"):
        replace(CLAIM, measure="quality_difference")
    with pytest.raises(ValueError, match="retained needs the arm without personalisation"):
        replace(CLAIM, measure="retained", column="nll", against="always_retune")
    with pytest.raises(ValueError, match="less_releases goes with retained, got"):
        replace(CLAIM, less_releases=("mild",))


def test_tables_count_retunes_by_release_and_show_areas() -> None:
    arms = {str(name): part for (name,), part in fleet().group_by("arm", maintain_order=True)}
    ours = tabulate_retunes(arms)[0]
    assert list(ours)[:4] == ["arm", "mild", "severe", "retunes per device"]
    assert list(ours.values())[:4] == ["ours", "4 of 40", "30 of 40", "0.85"]
    scores = tabulate_scores(arms, MARGIN)[0]
    assert scores["a retune helps"] == "34 of 80"
    assert scores["within releases [95 %]"].startswith("0.500")  # one drift for all of a release


def test_a_grid_judges_every_claim_in_every_world_that_has_its_arms() -> None:
    lone = fleet().filter(pl.col("arm") == "ours")
    claims = [
        CLAIM,
        replace(CLAIM, claim="named", world="b"),
        replace(CLAIM, claim="two", measure="energy_saving", against="always_retune", releases=()),
    ]
    grid = judge_everywhere({"a": fleet(), "b": lone}, claims, "exact_match")
    assert [(one["claim"], list(one["worlds"])) for one in grid] == [
        ("mild", ["a", "b"]),
        ("two", ["a"]),
    ]
    assert grid[0]["share"] in {0.0, 0.5, 1.0}
    rows = tabulate_grid(grid)
    assert [list(row) for row in rows] == [["claim", "a", "b", "holds in"]] * 2
    assert rows[1]["b"] == "n/a"


def test_a_claim_about_a_third_of_the_users_looks_at_them_alone() -> None:
    # devices 0 to 5 wrote 0, 10, ... 50 exchanges; only the two that wrote most lose, 0.1 each
    rows: list[dict[str, Any]] = []
    for device in range(6):
        lost = 0.1 if device > 3 else 0.0
        for name, match in (("ours", 0.6 - lost), ("always_retune", 0.6)):
            wrote: dict[str, float] = {"arrived": 10 * device, "exact_match": match}
            rows.append(night(name, device, 0, "retune", **wrote))
    frame = add_decision_columns(pl.DataFrame(rows, schema=SCHEMA), RELEASES, Unguided())
    about = Claim(
        claim="third",
        measure="quality_difference",
        arm="ours",
        against="always_retune",
        threshold=0.0,
        direction="not_above",
    )
    claims = [replace(about, stratum=name) for name in ("light", "middle", "heavy", "")]
    found = [one["estimate"] for one in judge_claims({"w": frame}, claims, "exact_match")]
    assert found == pytest.approx([0.0, 0.0, -0.1, -0.1 / 3])
    with pytest.raises(ValueError, match="stratum must be one of"):
        replace(about, stratum="some")
