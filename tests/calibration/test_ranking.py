"""Joules per FLOP rank phones as the sources do: no guessed power beside a measured rate decides.

Where no power was measured all phones carry one estimate, so they rank as their rates: QVAC's for
one runtime on three phones, LLM-Profiler's for one engine on three generations of chips.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fleettune.cost.energy import central_values, price_amount
from fleettune.cost.hardware import DeviceProfile, load_hardware
from fleettune.cost.radio import WIFI
from fleettune.cost.workload import Amount, Phase
from tests.calibration.published import FITTED_MODEL, LLM_PROFILER
from tests.calibration.published_fits import inference_fit, qvac_gflops, qvac_phones

HARDWARE = load_hardware(Path(__file__).parents[2] / "conf" / "hardware")
PHONES = (
    "galaxy_s25",
    "iphone_16",
    "meizu_21",
    "pixel_9_pro",
    "oneplus_12r",
    "pixel_7",
    "mate_40_pro",
    "nova_9_pro",
    "mid_phone",
)
"""From the least pJ per FLOP of training to the most."""
OF_QVAC = {"Galaxy S25": "galaxy_s25", "iPhone 16": "iphone_16", "Pixel 9": "pixel_9_pro"}
OF_LLM_PROFILER = {
    "xiaomi15pro": "galaxy_s25",  # the same Snapdragon 8 Elite
    "meizu21": "meizu_21",
    "mate40pro": "mate_40_pro",
}
GENERATIONS = (
    ("oneplus_12r", "meizu_21", "galaxy_s25"),  # Snapdragon of 2022, 2023, 2024
    ("pixel_7", "pixel_9_pro"),  # Tensor of 2022, 2024
    ("mate_40_pro", "oneplus_12r", "iphone_16"),  # flagships of 2020, 2023, 2024
)


def pj_per_flop(name: str) -> float:
    return HARDWARE[name].training_pj_per_flop()[0]


def test_phones_stand_in_the_order_of_their_sources() -> None:
    phones = {name for name, profile in HARDWARE.items() if profile.battery_wh is not None}
    assert phones == set(PHONES)
    assert sorted(PHONES, key=pj_per_flop) == list(PHONES)


def test_phones_of_one_runtime_rank_as_its_rates() -> None:
    fastest = sorted(qvac_phones(), key=qvac_gflops, reverse=True)
    assert [OF_QVAC[phone] for phone in fastest] == sorted(OF_QVAC.values(), key=pj_per_flop)
    for phone, name in OF_QVAC.items():
        # the profile's rate is fitted on all sizes, qvac_gflops on one
        rate = HARDWARE[name].eff_forward_gflops
        assert rate.value == pytest.approx(qvac_gflops(phone), rel=0.04)


def test_chips_rank_as_the_one_source_that_measured_rate_and_power_of_several() -> None:
    joules = {
        OF_LLM_PROFILER[row.phone]: inference_fit(row).prefill_mj_per_gop
        for row in LLM_PROFILER
        if (row.engine, row.model) == ("MNN", FITTED_MODEL) and row.phone in OF_LLM_PROFILER
    }
    assert joules.keys() == set(OF_LLM_PROFILER.values())
    assert sorted(joules, key=lambda name: joules[name]) == sorted(joules, key=pj_per_flop)
    # 35 : 19 : 13 there, 2.5 : 1.5 : 1 here
    assert joules["mate_40_pro"] / joules["galaxy_s25"] == pytest.approx(2.7, abs=0.05)
    assert pj_per_flop("mate_40_pro") / pj_per_flop("galaxy_s25") == pytest.approx(2.5, abs=0.05)


@pytest.mark.parametrize("chips", GENERATIONS)
def test_a_newer_chip_costs_no_more_than_an_older_one(chips: tuple[str, ...]) -> None:
    assert sorted(chips, key=pj_per_flop, reverse=True) == list(chips)


def test_phones_without_a_measured_power_carry_one_estimate() -> None:
    one = HARDWARE["galaxy_s25"].p_train_w
    for name in ("iphone_16", "meizu_21", "pixel_9_pro", "pixel_7", "mate_40_pro"):
        assert HARDWARE[name].p_train_w == one
    assert one.low < HARDWARE["oneplus_12r"].p_train_w.value < one.high


def test_one_thread_draws_what_training_adds_to_idle() -> None:
    # FMCL-CETAS, idle and training in W, the screen on in both: Motorola, Lenovo, OPPO.
    logs = ((1.32, 2.66, 2.88), (2.03, 2.5, 2.6), (1.45, 1.9, 2.2))
    middle = sum((low + high) / 2 - idle for idle, low, high in logs) / len(logs)
    added = [end - idle for idle, *ends in logs for end in ends]
    power = HARDWARE["mid_phone"].p_train_w
    idle_w = HARDWARE["mid_phone"].p_idle_w.value
    assert power.value - idle_w == pytest.approx(middle, abs=5e-3)
    assert power.low - idle_w == pytest.approx(min(added), abs=5e-3)
    assert power.high - idle_w == pytest.approx(max(added), abs=5e-3)


@pytest.mark.parametrize("profile", HARDWARE.values(), ids=HARDWARE.keys())
def test_joules_per_flop_are_those_that_a_simulation_charges(profile: DeviceProfile) -> None:
    prices = central_values(profile, WIFI)
    _, energy_j = price_amount(Phase.FORWARD, Amount(flop=1e12), prices)
    value, least, greatest = profile.training_pj_per_flop()
    assert value == pytest.approx(float(energy_j))  # pJ per FLOP are J per TFLOP
    assert least <= value <= greatest


def test_only_inference_of_two_phones_has_rate_and_power_of_one_measurement() -> None:
    told = {name: profile.measured_together() for name, profile in HARDWARE.items()}
    both = ("prefill", "decode")
    assert {name: phases for name, phases in told.items() if phases} == {
        "mate_40_pro": both,
        "meizu_21": both,
    }
