"""Joules: published measurements come back, every phase by hand, and nothing is lost on the way."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.cost.energy import (
    Values,
    central_values,
    coefficients,
    pick_values,
    price,
    price_amount,
    price_arrays,
    work_s,
)
from fleettune.cost.hardware import Coefficient, DeviceProfile, load_hardware
from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.cost.radio import WIFI
from fleettune.cost.workload import Amount, Entry, Phase, Workload, moving, transferring

HARDWARE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")
ROUND_RATE = Coefficient(value=50, low=25, high=100, tier="E", source="a round number")
PHONE = replace(HARDWARE["oneplus_12r"], eff_forward_gflops=ROUND_RATE)
AT = central_values(PHONE, WIFI)
NET = central_values(replace(PHONE, power_scope="net"), WIFI)

# XPerT, arXiv 2504.13938: minutes and kJ of tuning Llama-3.2-1B on a OnePlus 12R, from scratch
# and from starts that are 30, 50, 70, 80 and 90 % similar.
XPERT = ((97.8, 15.7), (92.4, 14.9), (81.8, 13.3), (56.7, 9.0), (32.9, 5.3), (17.9, 2.8))

amounts = st.builds(
    Amount, flop=st.floats(0, 1e18), moved_bytes=st.floats(0, 1e13), bursts=st.integers(0, 9)
)
stages = st.sampled_from([stage for stage in Stage if stage is not Stage.IDLE])
entries = st.lists(st.tuples(stages, st.sampled_from(Phase), amounts), max_size=12)
profiles = st.sampled_from(list(HARDWARE.values()))


def workload_of(done: list[Entry]) -> Workload:
    workload = Workload()
    for entry in done:
        workload = workload.plus(*entry)
    return workload


def one(phase: Phase, amount: Amount) -> Workload:
    return Workload(entries=((Stage.TUNE, phase, amount),))


@pytest.mark.parametrize(("minutes", "kilojoules"), XPERT)
def test_xperts_joules_follow_from_its_minutes(minutes: float, kilojoules: float) -> None:
    flop = minutes * 60 * 50e9
    half = Amount(flop=flop / 2)
    night = one(Phase.FORWARD, half).plus(Stage.TUNE, Phase.BACKWARD, half)
    cost = price(night, AT).total()
    assert cost.time_s == pytest.approx(minutes * 60)
    # 3 %: one constant power fits the six rows within 2.9 %; 0.05 kJ of rounding is 1.8 % of 2.8.
    assert cost.energy_j == pytest.approx(kilojoules * 1e3, rel=0.03)


def test_xperts_longest_run_by_hand() -> None:
    # 97.8 min = 5868 s. XPerT's 2.68 W is the whole phone: 2.18 W above its idle draw of 0.5 W.
    ledger = price(one(Phase.FORWARD, Amount(flop=5868 * 50e9)), AT)
    assert ledger.of(Stage.TUNE).energy_j == pytest.approx(5868 * 2.18)
    assert ledger.of(Stage.IDLE).energy_j == pytest.approx(5868 * 0.5)
    assert ledger.total().energy_j == pytest.approx(15_726, abs=1)
    assert ledger.total().energy_j == pytest.approx(5868 * 2.68)


def one_size_fits(profile: DeviceProfile, rows: list[tuple[float, float]]) -> float:
    """Returns the mean relative error of times, with throughput fitted on the 1B model alone.

    LoRA training does 2 FLOP per weight and token forward, 2 backward (frozen weights need no
    gradient of their own); rows are (weights, seconds) of one epoch of 41,754 tokens.
    """
    tokens = 41_754
    fitted = 4 * 1e9 * tokens / dict(rows)[1e9] / 1e9
    throughput = Coefficient(value=fitted, low=fitted, high=fitted, tier="F", source="1B row")
    at = central_values(replace(profile, eff_forward_gflops=throughput), WIFI)
    others = [(weights, seconds) for weights, seconds in rows if weights != 1e9]
    return mean(abs(tuned_s(2 * weights * tokens, at) / seconds - 1) for weights, seconds in others)


def tuned_s(flop: float, at: Values) -> float:
    """Returns the seconds of as much work forward as backward."""
    amount = Amount(flop=flop)
    return work_s(one(Phase.FORWARD, amount).plus(Stage.TUNE, Phase.BACKWARD, amount), at)


@pytest.mark.skipif(
    "FLEETTUNE_DATA" not in os.environ,
    reason="set FLEETTUNE_DATA to the folder with devices/phone_lora_training_qvac.csv",
)
def test_time_fitted_on_one_size_predicts_other_sizes_on_three_phones() -> None:
    table = Path(os.environ["FLEETTUNE_DATA"]) / "devices" / "phone_lora_training_qvac.csv"
    rows: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["format"] == "TQ2_0" and row["epoch_seconds"] != "OOM":
                weights, seconds = float(row["params_nominal"]), float(row["epoch_seconds"])
                rows[row["device"]].append((weights, seconds))
    errors = {device: one_size_fits(PHONE, found) for device, found in rows.items()}
    assert errors.keys() == {"Pixel 9", "Galaxy S25", "iPhone 16"}
    # The published analysis has 2.4, 7.0 and 11.2 %; 12 % is its bound.
    assert max(errors.values()) <= 0.12


GFLOP_100, GB_1 = Amount(flop=100e9), Amount(moved_bytes=1e9)


@pytest.mark.parametrize(
    ("phase", "amount", "time_s", "power_w"),
    [
        # Training at 50 GFLOP/s, prompts at 300, memory at 17 GB/s; storage 1.5 and 0.8 GB/s.
        (Phase.FORWARD, GFLOP_100, 2.0, 2.68),
        (Phase.BACKWARD, GFLOP_100, 2.0, 2.68),
        (Phase.PREFILL, GFLOP_100, 1 / 3, 6.2),
        (Phase.DECODE, GFLOP_100, 1 / 3, 7.7),
        (Phase.FORWARD, GB_1, 1 / 17, 2.68),
        (Phase.BACKWARD, GB_1, 1 / 17, 2.68),
        (Phase.PREFILL, GB_1, 1 / 17, 6.2),
        (Phase.DECODE, GB_1, 1 / 17, 7.7),
        (Phase.READ, GB_1, 1 / 1.5, 5.0),
        (Phase.WRITE, GB_1, 1 / 0.8, 5.0),
    ],
)
def test_every_phase_of_the_chip_by_hand(
    phase: Phase, amount: Amount, time_s: float, power_w: float
) -> None:
    found_s, found_j = price_amount(phase, amount, AT)
    assert float(found_s) == pytest.approx(time_s)
    # The profile's scope is unknown, so its powers are the whole phone's: idle is taken off.
    assert float(found_j) == pytest.approx(time_s * (power_w - 0.5))
    # A net power stands above idle already.
    net_s, net_j = price_amount(phase, amount, NET)
    assert float(net_s) == float(found_s)
    assert float(net_j) == pytest.approx(time_s * power_w)


def test_net_power_is_topped_up_with_idle_power_and_a_total_is_not() -> None:
    second = one(Phase.FORWARD, Amount(flop=50e9))
    assert price(second, AT).total().energy_j == pytest.approx(2.68)
    assert price(second, NET).total().energy_j == pytest.approx(2.68 + 0.5)
    total = central_values(replace(PHONE, power_scope="total"), WIFI)
    assert price(second, total) == price(second, AT)


def test_a_phase_below_the_idle_draw_costs_nothing_above_it() -> None:
    at = {**AT, "p_train_w": np.float64(0.3)}
    time_s, energy_j = price_amount(Phase.FORWARD, Amount(flop=50e9), at)
    assert (float(time_s), float(energy_j)) == (pytest.approx(1.0), 0.0)


@pytest.mark.parametrize(("phase", "way_w"), [(Phase.RECEIVE, 1.32), (Phase.SEND, 1.62)])
def test_wifi_joules_per_megabyte_are_those_of_the_power_profile(
    phase: Phase, way_w: float
) -> None:
    # 1 MB = 8 Mbit at 50 Mbit/s = 0.16 s: 1.32 W down and 1.62 W up; published 0.21 and 0.26 J.
    # Each burst has its round trip of 20 ms at that power, and a tail of 30 mJ.
    # A radio's power stands above idle whatever the scope of the phases.
    for at in (AT, NET):
        time_s, energy_j = price_amount(phase, transferring(1e6), at)
        assert float(time_s) == pytest.approx(0.16 + 0.02)
        assert float(energy_j) == pytest.approx(0.18 * way_w + 0.03)
    cost = price(one(phase, transferring(1e6)), AT).of(Stage.TUNE)
    down, up = (1e6, 0.0) if phase is Phase.RECEIVE else (0.0, 1e6)
    assert (cost.down_bytes, cost.up_bytes) == (down, up)


def test_the_two_ways_of_the_radio_have_rates_of_their_own() -> None:
    at = {**AT, "radio_up_mbps": np.float64(10.0)}
    assert float(price_amount(Phase.SEND, transferring(1e6), at)[0]) == pytest.approx(0.82)
    assert float(price_amount(Phase.RECEIVE, transferring(1e6), at)[0]) == pytest.approx(0.18)


def test_bandwidth_bounds_what_computing_does_not() -> None:
    # 600 MB at 17 GB/s take 35.3 ms, 2 GFLOP at 300 GFLOP/s 6.7 ms: memory bounds decoding.
    memory_bound = Amount(flop=2e9, moved_bytes=600e6)
    time_s, energy_j = price_amount(Phase.DECODE, memory_bound, AT)
    assert float(time_s) == pytest.approx(0.6 / 17)
    assert float(energy_j) == pytest.approx(0.6 / 17 * 7.2)
    # 20 GFLOP take 66.7 ms: computing bounds it, and the bytes take no time of their own.
    computing_bound = Amount(flop=20e9, moved_bytes=600e6)
    assert float(price_amount(Phase.DECODE, computing_bound, AT)[0]) == pytest.approx(20 / 300)
    # A phase of a stage is priced as a whole: max(22 / 300, 1.2 / 17), not the sum of two maxima.
    both = memory_bound + computing_bound
    assert float(price_amount(Phase.DECODE, both, AT)[0]) == pytest.approx(22 / 300)


def test_the_backward_pass_has_its_share_of_the_forward_throughput() -> None:
    at = {**AT, "backward_ratio": np.float64(0.8)}
    # 100 GFLOP at 0.8 * 50 GFLOP/s; the forward pass, and what memory bounds, as before.
    assert float(price_amount(Phase.BACKWARD, GFLOP_100, at)[0]) == pytest.approx(2.5)
    assert float(price_amount(Phase.FORWARD, GFLOP_100, at)[0]) == pytest.approx(2.0)
    assert float(price_amount(Phase.BACKWARD, GB_1, at)[0]) == pytest.approx(1 / 17)


def test_a_check_reads_storage_for_seconds_not_minutes() -> None:
    # Two half-precision releases of a 1B model: 5 GB at 1.5 GB/s = 3.33 s at 5 W, idle included:
    # 16.7 J, inside the 1 to 5 s and 7 to 26 J that we expect of such a check.
    cost = price(one(Phase.READ, moving(5e9)), AT).total()
    assert cost.time_s == pytest.approx(5 / 1.5)
    assert cost.energy_j == pytest.approx(5 / 1.5 * 5.0)


def test_a_night_by_hand() -> None:
    night = Workload(
        entries=(
            (Stage.DOWNLOAD, Phase.RECEIVE, transferring(100e6)),
            (Stage.DOWNLOAD, Phase.WRITE, moving(100e6)),
            (Stage.TUNE, Phase.FORWARD, Amount(flop=500e9)),
            (Stage.TUNE, Phase.BACKWARD, Amount(flop=1000e9)),
            (Stage.UPLOAD, Phase.SEND, transferring(1e6)),
        )
    )
    ledger = price(night, AT)
    # 800 Mbit at 50 Mbit/s and 20 ms = 16.02 s of 1.32 W and 30 mJ, then 0.1 GB at 0.8 GB/s =
    # 0.125 s of 4.5 W.
    assert ledger.of(Stage.DOWNLOAD).time_s == pytest.approx(16.145)
    assert ledger.of(Stage.DOWNLOAD).energy_j == pytest.approx(21.1764 + 0.5625)
    assert ledger.of(Stage.DOWNLOAD).down_bytes == 100e6
    # 10 s and 20 s of 2.18 W.
    assert ledger.of(Stage.TUNE).time_s == pytest.approx(30)
    assert ledger.of(Stage.TUNE).energy_j == pytest.approx(65.4)
    assert ledger.of(Stage.TUNE).work_flop == 1500e9
    # 0.18 s of 1.62 W and 30 mJ.
    assert ledger.of(Stage.UPLOAD).energy_j == pytest.approx(0.3216)
    assert work_s(night, AT) == pytest.approx(16.145 + 30 + 0.18)
    assert ledger.of(Stage.IDLE).energy_j == pytest.approx(0.5 * 46.325)
    assert ledger.of(Stage.IDLE).time_s == 0
    assert ledger.total().energy_j == pytest.approx(21.7389 + 65.4 + 0.3216 + 23.1625)


@given(entries, profiles)
def test_the_sum_of_stages_is_the_whole_device(done: list[Entry], found: DeviceProfile) -> None:
    # Where no phase draws less than idle, the device's draw is that of its phases, second by
    # second; a radio's power comes on top of the idle draw.
    at, workload = (
        central_values(found, WIFI),
        workload_of([e for e in done if e[0] is not Stage.OBSERVE]),
    )
    drawn_j = 0.0
    for _, phase, amount in workload.entries:
        time_s, above_j = (float(value) for value in price_amount(phase, amount, at))
        drawn_j += above_j + float(at["p_idle_w"]) * time_s
    assert price(workload, at).total().energy_j == pytest.approx(drawn_j, rel=1e-9)
    assert price(workload, at).total().time_s == pytest.approx(work_s(workload, at), rel=1e-9)


@given(entries, st.lists(st.floats(0, 1), min_size=1, max_size=4), profiles)
def test_splitting_a_workload_neither_makes_nor_loses_joules(
    done: list[Entry], cuts: list[float], found: DeviceProfile
) -> None:
    at, whole = central_values(found, WIFI), workload_of(done)
    edges = [0.0, *sorted(cuts), 1.0]
    parts = [
        Workload(entries=tuple((s, p, amount * (end - begin)) for s, p, amount in whole.entries))
        for begin, end in pairwise(edges)
    ]
    ledgers, at_once = [price(part, at) for part in parts], price(whole, at)
    for stage in Stage:
        one_by_one = sum((ledger.of(stage) for ledger in ledgers), Cost())
        together = at_once.of(stage)
        # shares of floats round; 1e-9 is far above their error and far below any figure shown
        assert one_by_one.energy_j == pytest.approx(together.energy_j, rel=1e-9, abs=1e-9)
        assert one_by_one.time_s == pytest.approx(together.time_s, rel=1e-9, abs=1e-9)
        assert one_by_one.work_flop == pytest.approx(together.work_flop, rel=1e-9, abs=1e-3)
        assert one_by_one.down_bytes == pytest.approx(together.down_bytes, rel=1e-9, abs=1e-3)


@given(entries, entries, profiles)
def test_stages_are_priced_apart_from_each_other(
    one_night: list[Entry], other_night: list[Entry], found: DeviceProfile
) -> None:
    # Nothing that a stage does changes the price of another one; idle draws add.
    first = workload_of([e for e in one_night if e[0] in (Stage.TUNE, Stage.CHECK)])
    second = workload_of([e for e in other_night if e[0] in (Stage.SERVE, Stage.UPLOAD)])
    at = central_values(found, WIFI)
    together, one, other = price(first + second, at), price(first, at), price(second, at)
    for stage in Stage:
        apart = one.of(stage) + other.of(stage)
        assert together.of(stage).energy_j == pytest.approx(apart.energy_j, rel=1e-9)


@given(
    st.sampled_from(Phase),
    st.lists(amounts, min_size=1, max_size=5),
    st.lists(st.tuples(profiles, st.booleans()), min_size=1, max_size=5),
)
def test_arrays_are_priced_element_by_element(
    phase: Phase, many: list[Amount], devices: list[tuple[DeviceProfile, bool]]
) -> None:
    # rows down, draws across
    scoped = [replace(p, power_scope="net" if net else "total") for p, net in devices]
    draws = [central_values(profile, WIFI) for profile in scoped]
    names = set.intersection(*(set(draw) for draw in draws))
    at = {name: np.array([float(draw[name]) for draw in draws]) for name in names}
    flop, moved_bytes, bursts = (
        np.array([[getattr(amount, name)] for amount in many], dtype=np.float64)
        for name in ("flop", "moved_bytes", "bursts")
    )
    time_s, energy_j = price_arrays(phase, flop, moved_bytes, bursts, at)
    assert time_s.shape == energy_j.shape == (len(many), len(draws))
    for row, amount in enumerate(many):
        for column, draw in enumerate(draws):
            single_s, single_j = price_amount(phase, amount, draw)
            assert time_s[row, column] == float(single_s)
            assert energy_j[row, column] == float(single_j)


def test_values_are_picked_by_name_and_range() -> None:
    low = pick_values(PHONE, WIFI, lambda _, coefficient: np.float64(coefficient.low))
    assert float(low["p_train_w"]) == 2.61
    assert float(low["eff_forward_gflops"]) == 25
    assert float(AT["p_train_w"]) == 2.68
    named = pick_values(PHONE, WIFI, lambda name, _: np.float64(len(name)))
    assert float(named["p_idle_w"]) == 8
    derived = {"idle_included", "radio_down_j_per_mb", "radio_up_j_per_mb"}
    assert set(AT) == {name for name, _ in coefficients(PHONE, WIFI)} | derived
    assert (float(AT["idle_included"]), float(NET["idle_included"])) == (1.0, 0.0)


@given(entries, profiles)
def test_no_joules_are_ever_negative(done: list[Entry], found: DeviceProfile) -> None:
    for pick in ("low", "value", "high"):
        at = pick_values(found, WIFI, lambda _, c, pick=pick: np.float64(getattr(c, pick)))
        ledger = price(workload_of(done), at)
        assert all(cost.energy_j >= 0 and cost.time_s >= 0 for _, cost in ledger.costs)


def test_no_work_costs_nothing() -> None:
    assert price(Workload(), AT) == Ledger()
    assert work_s(Workload(), AT) == 0
