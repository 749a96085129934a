"""The Monte Carlo prices every row as the device's own ledger does, and draws are common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.cost.energy import Values, central_values, heat_s, price, work_s
from fleettune.cost.hardware import Coefficient, DeviceProfile, load_hardware
from fleettune.cost.ledger import Stage
from fleettune.cost.radio import WIFI
from fleettune.cost.workload import COMPUTING, Amount, Phase, Workload
from simulations.experiment.device_fleet import HARDWARE
from simulations.results.recorder import WORK_SCHEMA
from simulations.uncertainty import repricing
from simulations.uncertainty.coefficient_draws import (
    draw_coefficient,
    draw_coefficients,
    scale_coefficients,
    split_triangle,
)
from simulations.uncertainty.estimate import estimate
from simulations.uncertainty.priced_rows import BY_DAY, read_nights
from simulations.uncertainty.repricing import reprice, reprice_stages

PROFILES = load_hardware(HARDWARE)
PHONE, BOX = PROFILES["mid_phone"], PROFILES["jetson_orin_nano_8gb"]
SURE_WIFI = replace(
    WIFI,
    rtt_s=replace(WIFI.rtt_s, low=WIFI.rtt_s.value, high=WIFI.rtt_s.value),
    tail_j=replace(WIFI.tail_j, low=WIFI.tail_j.value, high=WIFI.tail_j.value),
)
COOL = replace(PHONE, t_cap_c=Coefficient(value=90, low=90, high=90, tier="E", source="never hot"))
Nightly = Mapping[tuple[str, int, int], Workload]


def collapsed(profile: DeviceProfile) -> DeviceProfile:
    """The profile without any doubt."""
    sure = {
        name: replace(item, low=item.value, high=item.value)
        for name, item in profile.coefficients()
    }
    return replace(profile, **sure)


def frames(nights: Nightly, profile_of: Mapping[int, DeviceProfile]) -> tuple[Any, Any]:
    """Rows, without joules, and work of some nights."""
    rows = [
        {"arm": arm, "device": device, "round": night, "profile": profile_of[device].name}
        for arm, device, night in nights
    ]
    work = [
        (*key, stage.value, phase.value, amount.flop, amount.moved_bytes, amount.bursts)
        for key, workload in nights.items()
        for stage, phase, amount in workload.entries
    ]
    attended = pl.DataFrame(rows).with_columns(pl.lit("present").alias("attendance"))
    return attended, pl.DataFrame(work, schema=WORK_SCHEMA, orient="row")


def ledger_j(workload: Workload, at: Values) -> float:
    """What a device pays for work, heat of its night included."""
    night = tuple(entry for entry in workload.entries if entry[0] not in BY_DAY)
    heat = max(0.0, heat_s(Workload(entries=night), at))  # a rest of rounding may be below zero
    return price(workload, at, heat).total().energy_j


def one(phase: Phase, stage: Stage = Stage.TUNE, **amount: float) -> Workload:
    return Workload(entries=((stage, phase, Amount(**amount)),))


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Any work; computing lies on both sides of the balance points."""
    found = Workload()
    for phase in draw(st.lists(st.sampled_from(Phase), max_size=5)):
        stage = draw(st.sampled_from((Stage.TUNE, Stage.SERVE, Stage.WASTED)))
        size = draw(st.floats(1e3, 1e11))
        size *= 1e2 if stage is Stage.TUNE else 1.0  # long enough to heat some devices
        if phase in COMPUTING:
            amount = Amount(flop=size * draw(st.floats(0.1, 100)), moved_bytes=size)
        else:
            is_radio = phase in (Phase.RECEIVE, Phase.SEND)
            amount = Amount(moved_bytes=size, bursts=float(is_radio))
        found = found.plus(stage, phase, amount)
    return found


@st.composite
def fleets(draw: st.DrawFn) -> Nightly:
    keys = [(arm, device, night) for arm in ("a", "b") for device in range(3) for night in (0, 1)]
    return {key: draw(workloads()) for key in keys}


@settings(max_examples=8, deadline=None)
@given(fleets())
def test_every_draw_prices_a_row_as_its_ledger_does(nights: Nightly) -> None:
    of = {0: PHONE, 1: BOX, 2: PHONE}
    read = read_nights(*frames(nights, of))
    at = {profile.name: draw_coefficients(profile, WIFI, 5, 3) for profile in (PHONE, BOX)}
    found = reprice(read, [at[name] for name in read.profiles], by_device=True)
    for (arm, device), draw in ((pair, k) for pair in (("a", 0), ("b", 1)) for k in range(3)):
        here = {
            name: np.asarray(v)[draw] if v.ndim else v for name, v in at[of[device].name].items()
        }
        mine = [work for key, work in nights.items() if key[:2] == (arm, device)]
        expected = math.fsum(ledger_j(work, here) for work in mine)
        got = found.device_j[read.arms.index(arm), device, draw]
        assert got == pytest.approx(expected, rel=1e-9)


@settings(max_examples=8, deadline=None)
@given(fleets())
def test_a_total_is_the_sum_of_its_devices_and_of_its_stages(nights: Nightly) -> None:
    read = read_nights(*frames(nights, {0: PHONE, 1: BOX, 2: PHONE}))
    at = [draw_coefficients(PROFILES[name], WIFI, 1, 4) for name in read.profiles]
    found = reprice(read, at, by_device=True)
    assert found.device_j.sum(axis=1) == pytest.approx(found.total_j, rel=1e-12)
    marginal_j = found.marginal_j.sum(axis=1)
    assert reprice_stages(read, at).sum(axis=1) == pytest.approx(marginal_j, rel=1e-12)


@settings(max_examples=8, deadline=None)
@given(fleets())
def test_without_ranges_every_draw_is_the_central_value(nights: Nightly) -> None:
    rows, work = frames(nights, {0: PHONE, 1: BOX, 2: PHONE})
    sure = [collapsed(profile) for profile in (PHONE, BOX)]
    found = estimate(rows, work, sure, "a", radio=SURE_WIFI, seed=3, draws=20)
    profile_of = {0: PHONE, 1: BOX, 2: PHONE}
    for place, arm in enumerate(found.arms):
        expected = math.fsum(
            ledger_j(workload, central_values(profile_of[key[1]], WIFI))
            for key, workload in nights.items()
            if key[0] == arm
        )
        assert found.totals.total_j[place] == pytest.approx(np.full(20, expected), rel=1e-9)


def test_heat_makes_a_row_as_long_as_its_device_says() -> None:
    hot = replace(PHONE, t_cap_c=replace(PHONE.t_cap_c, value=32.0, low=32.0, high=32.0))
    work = one(Phase.RECEIVE, moved_bytes=1e9, bursts=1.0) + one(Phase.FORWARD, flop=1e13)
    read = read_nights(*frames({("a", 0, 0): work}, {0: hot}))
    at = central_values(hot, WIFI)
    lasts_s, heat = work_s(work, at), heat_s(work, at)
    assert heat > 0
    for deadline_s, late in ((0.999 * (lasts_s + heat), 1), (1.001 * (lasts_s + heat), 0)):
        found = reprice(read, [scale_coefficients(hot, WIFI, {}, 1)], deadline_s=deadline_s)
        assert found.idle_j[0, 0, 0] / hot.p_idle_w.value == pytest.approx(
            lasts_s + heat, rel=1e-12
        )
        assert found.flipped.tolist() == [[late]]


def test_two_draws_by_hand() -> None:
    # reading 3 GB at 1 GB/s and 4 W, idle 1 W in it: draw 0 takes 3 s and 3 * (4 - 1) + 3 * 1 J;
    # draw 1 has twice the rate: 1.5 s, 1.5 * 3 + 1.5 * 1 J. Forward: 8 GFLOP at 2 GFLOP/s, 4 s, and
    # in draw 1 at 4 GFLOP/s 2 s, at 5 W: 4 * 4 + 4 * 1 and 2 * 4 + 2 * 1 J.
    changed = {"flash_read_gbs": 1.0, "p_storage_w": 4.0, "p_idle_w": 1.0, "p_train_w": 5.0}
    changed |= {"eff_forward_gflops": 2.0, "bw_decode_gbs": 10.0, "t_cap_c": 90.0}  # never hot
    fixed = {
        name: Coefficient(value=v, low=v, high=v, tier="E", source="by hand")
        for name, v in changed.items()
    }
    profile = replace(PHONE, power_scope="total", **fixed)
    twice = np.array([1.0, 2.0])
    at = scale_coefficients(
        profile, WIFI, {"flash_read_gbs": twice, "eff_forward_gflops": twice}, 2
    )
    reading, computing = one(Phase.READ, moved_bytes=3e9), one(Phase.FORWARD, flop=8e9)
    both = reading + computing
    nights = {("a", 0, 0): reading, ("a", 1, 0): both, ("b", 0, 0): computing}
    read = read_nights(*frames(nights, {0: profile, 1: profile}))
    weights = np.array([[0, 2], [2, 0]], np.uint8)  # draw 0: device 1 twice; draw 1: device 0
    found = reprice(read, [at], weights=weights, deadline_s=3.5)
    assert found.total_j == pytest.approx(np.array([[12 + 32, 6 + 16], [20, 10]]))
    assert found.idle_j[:, 0] == pytest.approx(np.array([[3 + 7, 1.5 + 3.5], [4, 2]]))
    assert found.resampled_j == pytest.approx(np.array([[64, 12], [0, 20]]))
    # nights of 3 and 7 s, then 1.5 and 3.5 s, were all in time before: one of each is late
    assert found.flipped.tolist() == [[1, 0], [1, 0]]
    assert found.replied.tolist() == [2, 1]


def test_serving_by_day_does_not_fill_the_night() -> None:
    work = one(Phase.READ, stage=Stage.SERVE, moved_bytes=1e15)
    read = read_nights(*frames({("a", 0, 0): work}, {0: PHONE}))
    assert reprice(
        read, [scale_coefficients(PHONE, WIFI, {}, 1)], deadline_s=1.0
    ).flipped.tolist() == [[0]]


def test_an_arm_against_itself_saves_exactly_nothing() -> None:
    rows, work = frames(
        {(arm, d, 0): one(Phase.FORWARD, flop=1e13 + d) for arm in "ab" for d in range(5)},
        dict.fromkeys(range(5), PHONE),
    )
    saving = estimate(rows, work, [PHONE], "a", radio=WIFI, seed=1, draws=50).saving
    for arm in "ab":
        assert (saving[arm].draws == 0).all()
        assert saving[arm].by_both == (0.0, 0.0)
        assert saving[arm].is_scale_free


def test_common_draws_cancel_in_a_ratio_and_not_in_a_total() -> None:
    nights = {
        (arm, device, 0): one(Phase.FORWARD, flop=share * 1e14) + one(Phase.WRITE, moved_bytes=1e8)
        for arm, share in (("a", 1.0), ("b", 0.4))
        for device in range(20)
    }
    rows, work = frames(nights, dict.fromkeys(range(20), PHONE))
    found = estimate(rows, work, [PHONE], "a", radio=WIFI, seed=1)
    low, high = np.quantile(found.totals.total_j[0], [0.025, 0.975])
    assert high / low > 3
    saving = found.saving["b"]
    assert saving.by_coefficients == pytest.approx((0.6, 0.6), abs=0.002)
    assert saving.is_scale_free


def test_a_saving_that_a_fixed_part_dilutes_is_scale_bound() -> None:
    nights = {
        (arm, device, 0): one(Phase.FORWARD, flop=share * 1e12)
        + one(Phase.RECEIVE, moved_bytes=3e9, bursts=1.0)
        for arm, share in (("a", 1.0), ("b", 0.1))
        for device in range(4)
    }
    rows, work = frames(nights, dict.fromkeys(range(4), PHONE))
    assert (
        not estimate(rows, work, [PHONE], "a", radio=WIFI, seed=1, draws=50)
        .saving["b"]
        .is_scale_free
    )


def test_devices_that_one_arm_lacks_are_left_out_of_its_saving() -> None:
    nights = {("a", d, 0): one(Phase.FORWARD, flop=1e13 * (1 + d)) for d in range(2)}
    nights |= {("b", 0, 0): one(Phase.FORWARD, flop=5e12)}
    nights |= {("c", 7, 0): one(Phase.FORWARD, flop=5e12)}
    rows, work = frames(nights, {0: COOL, 1: COOL, 7: COOL})
    saving = estimate(rows, work, [COOL], "a", radio=WIFI, seed=1, draws=10).saving
    assert saving["b"].draws == pytest.approx(0.5)  # 1 - 5 / 10, not 1 - 5 / 30
    assert saving["b"].by_both == (None, None)  # one device
    assert saving["c"].by_coefficients == (None, None)  # none


def test_tiers_are_weighted_by_what_they_move() -> None:
    # only training computes: of all coefficients, three decide the joules
    profile = replace(
        COOL,
        eff_forward_gflops=replace(COOL.eff_forward_gflops, tier="F"),
        p_train_w=replace(COOL.p_train_w, tier="M"),
        p_idle_w=replace(COOL.p_idle_w, tier="V"),
        power_scope="net",
    )
    rows, work = frames({("a", 0, 0): one(Phase.FORWARD, flop=1e13)}, {0: profile})
    weighted = estimate(rows, work, [profile], "a", radio=WIFI, seed=1, draws=10).weighted_tiers[
        "a"
    ]
    tiers = weighted["device_total"]
    # E = (P_train + P_idle) FLOP / eff: elasticities -1, P_train / sum, P_idle / sum
    power_w = profile.p_train_w.value + profile.p_idle_w.value
    assert tiers["F"] == pytest.approx(0.5, abs=0.01)
    assert tiers["M"] == pytest.approx(0.5 * profile.p_train_w.value / power_w, abs=0.01)
    assert tiers["E"] == tiers["S"] == 0
    assert weighted["device_marginal"]["V"] == 0  # the idle draw is none of its business
    assert weighted["wall"]["E"] == pytest.approx(1 / 3, abs=0.01)  # the charger counts as much
    assert math.fsum(tiers.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(("low", "value", "high"), [(1, 2, 3), (1, 1, 2), (6, 50, 120), (2, 4, 4)])
def test_draws_lie_in_their_range_with_the_value_as_their_median(
    low: float, value: float, high: float
) -> None:
    item = Coefficient(value=value, low=low, high=high, tier="E", source="made up")
    ends = split_triangle(np.array([0.0, 0.5, 1.0]), item)
    assert ends == pytest.approx([low, value, high])
    # a triangle's mass up to halfway between its thin end and its thick one is a quarter
    scale, back = (np.log, np.exp) if high / low > 3 else (float, float)
    halfway = back((scale(low) + scale(value)) / 2)
    assert split_triangle(np.array([0.125]), item) == pytest.approx([halfway])


def test_an_estimate_that_profiles_share_is_drawn_once() -> None:
    phone, other = PROFILES["pixel_7"], PROFILES["galaxy_s25"]
    mine, theirs = (draw_coefficients(profile, WIFI, 5, 20) for profile in (phone, other))
    assert phone.p_idle_w == other.p_idle_w
    assert (mine["p_idle_w"] == theirs["p_idle_w"]).all()
    assert (mine["radio_down_mbps"] == theirs["radio_down_mbps"]).all()
    # no power of training was measured on either
    assert (mine["p_train_w"] == theirs["p_train_w"]).all()
    assert phone.p_decode_w != other.p_decode_w
    quantiles = [(at["p_decode_w"] > at["p_decode_w"].mean()) for at in (mine, theirs)]
    assert (quantiles[0] != quantiles[1]).any()


def test_a_stream_belongs_to_its_coefficient_and_seed() -> None:
    item = PHONE.p_train_w
    first = draw_coefficient("mid_phone.p_train_w", item, 1, 5)
    assert (first == draw_coefficient("mid_phone.p_train_w", item, 1, 9)[:5]).all()
    assert (first != draw_coefficient("mid_phone.p_train_w", item, 2, 5)).all()
    assert (first != draw_coefficient("pixel_7.p_train_w", item, 1, 5)).all()


def test_parts_of_the_draws_make_the_same_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    nights = {
        (arm, d, n): one(Phase.PREFILL, flop=1e12 * (1 + d), moved_bytes=1e11)
        for arm in "ab"
        for d in range(7)
        for n in range(3)
    }
    rows, work = frames(nights, dict.fromkeys(range(7), PHONE))
    whole = estimate(rows, work, [PHONE], "a", radio=WIFI, seed=1, draws=30)
    monkeypatch.setattr("simulations.uncertainty.estimate._CELLS", 70)
    monkeypatch.setattr(repricing, "ROWS_AT_ONCE", 4)
    parts = estimate(rows, work, [PHONE], "a", radio=WIFI, seed=1, draws=30)
    assert parts.totals.total_j == pytest.approx(whole.totals.total_j, rel=1e-12)
    assert parts.totals.resampled_j == pytest.approx(whole.totals.resampled_j, rel=1e-12)


def test_what_does_not_fit_is_named() -> None:
    rows, work = frames({("a", 0, 0): one(Phase.FORWARD, flop=1e13)}, {0: PHONE})
    with pytest.raises(ValueError, match=r"reference must be an arm of the run .*'b'"):
        estimate(rows, work, [PHONE], "b", radio=WIFI, seed=1)
    with pytest.raises(ValueError, match=r"got none for \['mid_phone'\]"):
        estimate(rows, work, [BOX], "a", radio=WIFI, seed=1)
    with pytest.raises(ValueError, match="1 entries are of none"):
        read_nights(rows.with_columns(device=5), work)


def test_a_price_that_does_not_follow_from_its_units_is_an_error() -> None:
    rows, work = frames({("a", 0, 0): one(Phase.READ, moved_bytes=1e9)}, {0: PHONE})
    at = {**scale_coefficients(PHONE, WIFI, {}, 2), "flash_read_gbs": np.array([1.0, math.nan])}
    with pytest.raises(RuntimeError, match="the cost of read must be linear"):
        reprice(read_nights(rows, work), [at])
