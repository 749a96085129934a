"""What decisions are worth against what a retune gains: by hand and by brute force."""

from __future__ import annotations

from itertools import combinations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.results.derived_columns import SCORE
from simulations.studies.decision_measures import (
    estimate_above_release,
    estimate_auc,
    estimate_retune_rate,
    estimate_share_within,
)

MARGIN = 0.05


def scored(*decisions: tuple[int, int, float, float]) -> pl.DataFrame:
    """Decisions as (device, release, score, gain)."""
    columns = ("device", "release", SCORE, "retune_gain")
    made = [dict(zip(columns, one, strict=True)) for one in decisions]
    return pl.DataFrame(made).with_columns(decided=pl.lit(1))


def test_an_area_is_the_share_of_pairs_in_order_by_hand() -> None:
    # helped: 0.9 and 0.3; not: 0.1 and 0.3. Of four pairs 0.9 wins two, 0.3 wins one and ties one.
    frame = scored((0, 1, 0.9, 0.2), (1, 1, 0.3, 0.1), (2, 1, 0.1, 0.0), (3, 1, 0.3, 0.05))
    assert estimate_auc(frame, MARGIN, within=False)["mean"] == 3.5 / 4


def test_within_releases_what_is_the_same_for_all_tells_nothing() -> None:
    # drift alone: release 1 scores 0 and helps nobody but one, release 2 scores 1 and helps most
    frame = scored(
        *((device, 1, 0.0, 0.2 if device == 0 else 0.0) for device in range(4)),
        *((device, 2, 1.0, 0.0 if device == 0 else 0.2) for device in range(4)),
    )
    # pairs: 1 helped of release 1 with 3 ties and 1 loss; 3 of release 2 with 3 wins, 1 tie each
    assert estimate_auc(frame, MARGIN, within=False)["mean"] == (1.5 + 3 * 3.5) / 16
    assert estimate_auc(frame, MARGIN, within=True)["mean"] == 0.5


def test_releases_of_different_parts_are_different_releases() -> None:
    frame = scored((0, 1, 0.9, 0.2), (1, 1, 0.5, 0.0), (10, 1, 0.1, 0.2), (11, 1, 0.0, 0.0))
    parts = frame.with_columns(part=pl.Series([0, 0, 1, 1]))
    assert estimate_auc(parts, MARGIN, within=True)["mean"] == 1.0
    assert estimate_auc(parts, MARGIN, within=False)["mean"] == 0.75  # 0.1 loses to 0.5


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_an_area_equals_brute_force_over_all_pairs(drawn: list[tuple[int, bool]]) -> None:
    frame = scored(*((i, 1, float(s), 0.2 if up else 0.0) for i, (s, up) in enumerate(drawn)))
    pairs = [(a, b) for a, up in drawn for b, other in drawn if up and not other]
    found = estimate_auc(frame, MARGIN, within=False)["mean"]
    if not pairs:
        assert found is None
    else:
        wins = sum((a > b) + 0.5 * (a == b) for a, b in pairs)
        assert found == pytest.approx(wins / len(pairs))


def test_decisions_without_a_label_and_nights_without_one_do_not_count() -> None:
    frame = scored((0, 1, 0.9, 0.2), (1, 1, 0.1, 0.0), (2, 1, 0.0, 0.9))
    hidden = frame.with_columns(decided=pl.Series([1, 1, 0]))
    assert estimate_auc(hidden, MARGIN, within=False)["mean"] == 1.0
    unknown = frame.with_columns(retune_gain=pl.lit(None, dtype=pl.Float64))
    assert estimate_auc(unknown, MARGIN, within=False) == {"mean": None, "ci95": [None, None]}


def test_a_rate_counts_decisions_and_not_devices() -> None:
    frame = pl.DataFrame({"device": [0, 0, 1], "decided": [1, 1, 1], "retuned": [1, 0, 0]})
    assert estimate_retune_rate(frame)["mean"] == pytest.approx(1 / 3)
    nobody = frame.with_columns(decided=pl.lit(0), retuned=pl.lit(0))
    assert estimate_retune_rate(nobody)["mean"] is None


def gained(*decisions: tuple[int, int, float, int]) -> pl.DataFrame:
    """Decisions as (device, release, gain, whether the arm retuned)."""
    columns = ("device", "release", "retune_gain", "retuned")
    made = [dict(zip(columns, one, strict=True)) for one in decisions]
    return pl.DataFrame(made).with_columns(decided=pl.lit(1))


def test_the_share_between_devices_by_hand() -> None:
    # means 1 and 3 of the releases around 2: between 1; inside 1 and 1, so 1 of 2
    frame = gained((0, 1, 0.0, 0), (1, 1, 2.0, 0), (0, 2, 2.0, 0), (1, 2, 4.0, 0))
    assert estimate_share_within(frame)["mean"] == pytest.approx(0.5)
    alike = gained((0, 1, 1.0, 0), (1, 1, 1.0, 0), (0, 2, 3.0, 0), (1, 2, 3.0, 0))
    assert estimate_share_within(alike)["mean"] == 0.0
    assert estimate_share_within(gained((0, 1, 1.0, 0), (1, 1, 1.0, 0)))["mean"] is None


def test_deciding_per_device_by_hand() -> None:
    # one retune for the device that gains 1; a whole release gives half of that for as many
    frame = gained((0, 1, 1.0, 1), (1, 1, 0.0, 0))
    assert estimate_above_release(frame)["mean"] == pytest.approx((1.0 - 0.5) / 2)
    # the wrong one of them
    wrong = gained((0, 1, 1.0, 0), (1, 1, 0.0, 1))
    assert estimate_above_release(wrong)["mean"] == pytest.approx((0.0 - 0.5) / 2)
    # whoever follows the better release is as good as that, and no better
    same = gained((0, 1, 1.0, 1), (1, 1, 0.6, 1), (0, 2, 0.1, 0), (1, 2, 0.3, 0))
    assert estimate_above_release(same)["mean"] == pytest.approx(0.0)


def test_releases_of_different_parts_are_decided_apart() -> None:
    frame = gained((0, 1, 1.0, 1), (1, 1, 0.0, 0))
    parts = frame.with_columns(part=pl.Series([0, 1]))
    assert estimate_above_release(parts)["mean"] == pytest.approx(0.0)


def test_who_never_retunes_gains_nothing_and_nobody_is_unknown() -> None:
    frame = gained((0, 1, 1.0, 0), (1, 1, 0.0, 0))
    assert estimate_above_release(frame)["mean"] == 0.0
    assert estimate_above_release(frame.clear()) == {"mean": None, "ci95": [None, None]}
    assert estimate_share_within(frame.clear()) == {"mean": None, "ci95": [None, None]}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(-4, 4), st.integers(0, 1)), min_size=1, max_size=9
    )
)
def test_no_choice_of_whole_releases_beats_the_rival(drawn: list[tuple[int, int, int]]) -> None:
    frame = gained(*((i, r, g / 4, z) for i, (r, g, z) in enumerate(drawn)))
    retunes = sum(z for _, _, z in drawn)
    own = sum(g / 4 for _, g, z in drawn if z)
    rival = own - estimate_above_release(frame)["mean"] * len(drawn)
    by_release = {r: [g / 4 for other, g, _ in drawn if other == r] for r, _, _ in drawn}
    for size in range(len(by_release) + 1):
        for chosen in combinations(by_release, size):
            if sum(len(by_release[r]) for r in chosen) == retunes:
                assert sum(sum(by_release[r]) for r in chosen) <= rival + 1e-9
