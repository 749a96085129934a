"""Profiles say where each number comes from, and refuse nonsense."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from fleettune.cost.hardware import (
    COEFFICIENTS,
    Coefficient,
    DeviceProfile,
    FleetMix,
    device_profile,
    load_hardware,
)
from simulations.report.terminal_tables import make_devices_table

CONF = Path(__file__).parents[3] / "conf"
HARDWARE = load_hardware(CONF / "hardware")
PHONE = HARDWARE["oneplus_12r"]
every_profile = pytest.mark.parametrize("profile", HARDWARE.values(), ids=HARDWARE.keys())


def file_of(profile: DeviceProfile) -> dict[str, object]:
    """What a configuration file says of a profile."""
    lists = {name: list(astuple(item)) for name, item in profile.coefficients()}
    absent = {name: None for name in COEFFICIENTS if name not in lists}
    return {"name": profile.name, "power_scope": profile.power_scope, **lists, **absent}


def test_eleven_profiles_are_shipped_and_most_of_their_numbers_are_estimates() -> None:
    assert len(HARDWARE) == 11
    # The published table: 71 E, 25 V, 18 F, 2 M, 2 S. We add to each of eleven devices estimates of
    # two Wi-Fi rates, backward ratio, storage (read, write, power), charger efficiency, usable
    # memory and surroundings; to each of eight phones an estimated charger and four second-hand
    # thermal numbers, to each of three boxes four estimated ones.
    counts = sum((Counter(profile.tiers()) for profile in HARDWARE.values()), Counter[str]())
    estimates = 71 + 11 * (2 + 1 + 3 + 1 + 1 + 1) + 8 + 3 * 4
    assert counts == {"E": estimates, "V": 25, "F": 18, "M": 2, "S": 2 + 8 * 4}


def test_coefficients_keep_value_range_tier_and_source() -> None:
    power = PHONE.p_train_w
    assert (power.value, power.low, power.high, power.tier) == (2.68, 2.61, 2.71, "M")
    assert "2504.13938" in power.source


def test_a_device_on_mains_has_neither_battery_nor_charging_power() -> None:
    box = HARDWARE["jetson_orin_nano_8gb"]
    assert box.battery_wh is None
    assert box.p_charge_w is None
    names = [name for name, _ in box.coefficients()]
    assert names == [name for name in COEFFICIENTS if name not in ("battery_wh", "p_charge_w")]


@every_profile
def test_a_device_has_a_battery_and_power_to_charge_it_or_neither(profile: DeviceProfile) -> None:
    assert (profile.battery_wh is None) == (profile.p_charge_w is None)


@every_profile
def test_shares_of_a_device_are_shares_and_its_powers_stand_above_idle(
    profile: DeviceProfile,
) -> None:
    for share in (profile.charger_efficiency, profile.usable_ram, profile.eta_min):
        assert share.high <= 1
    for power in (profile.p_train_w, profile.p_prefill_w, profile.p_decode_w, profile.p_storage_w):
        assert power.value > profile.p_idle_w.value
    assert profile.t_ambient_c.high < profile.t_cap_c.low


@every_profile
def test_a_configuration_file_is_a_constructor_call(profile: DeviceProfile) -> None:
    path = CONF / "hardware" / f"{profile.name}.yaml"
    assert instantiate(OmegaConf.load(path)) == profile
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert fields.pop("_target_") == "fleettune.cost.device_profile"
    assert device_profile(**fields) == profile


@pytest.mark.parametrize("name", ["phones", "edge_boxes", "single", "field"])
def test_fleets_mix_profiles_that_exist(name: str) -> None:
    fleet = yaml.safe_load((CONF / "fleet" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert fleet["mix"].keys() <= HARDWARE.keys()
    assert all(share > 0 for share in fleet["mix"].values())


def test_a_mix_gives_each_profile_its_share_of_the_draws() -> None:
    parts = ((HARDWARE["pixel_7"], 1.0), (HARDWARE["mid_phone"], 3.0))
    mix = FleetMix(name="two", parts=parts)
    # Shares 1 and 3 split [0, 1) at 0.25.
    drawn = [mix.profile_of(draw).name for draw in (0.0, 0.2499, 0.25, 0.9999)]
    assert drawn == ["pixel_7", "pixel_7", "mid_phone", "mid_phone"]


@given(st.floats(0, 1, exclude_max=True), st.lists(st.floats(0.01, 10), min_size=1, max_size=11))
def test_every_draw_finds_a_profile(draw: float, shares: list[float]) -> None:
    parts = tuple(zip(HARDWARE.values(), shares, strict=False))
    assert FleetMix(name="any", parts=parts).profile_of(draw) in HARDWARE.values()


def test_the_table_says_that_joules_are_simulated_and_counts_tiers() -> None:
    table = make_devices_table(HARDWARE.values())
    console = Console(width=160)
    with console.capture() as printed:
        console.print(table)
    assert "2.61 to 2.71" in printed.get()
    assert table.row_count == 269
    assert "none was measured by this project" in str(table.caption)
    assert "Of 269 coefficients: 2 measured (M), 18 fitted to measurements (F)" in str(
        table.caption
    )


def test_impossible_mixes_are_refused() -> None:
    with pytest.raises(ValueError, match="share of oneplus_12r must be finite and > 0, got 0"):
        FleetMix(name="none", parts=((PHONE, 0.0),))
    with pytest.raises(ValueError, match="at least one profile"):
        FleetMix(name="none", parts=())
    with pytest.raises(ValueError, match=r"draw must be in \[0, 1\), got 1"):
        FleetMix(name="one", parts=((PHONE, 1.0),)).profile_of(1.0)


@pytest.mark.parametrize(
    ("value", "low", "high", "tier", "source", "rule"),
    [
        (1.0, 2.0, 3.0, "E", "x", "low <= value <= high, got value 1.0, low 2.0"),
        (4.0, 2.0, 3.0, "E", "x", "low <= value <= high"),
        (1.0, 0.0, 3.0, "E", "x", "0 < low"),
        (1.0, 1.0, float("inf"), "E", "x", "finite"),
        (float("nan"), 1.0, 2.0, "E", "x", "finite"),
        (1.0, 1.0, 1.0, "Q", "x", "tier must be one of M, F, S, V, E, got 'Q'"),
        (1.0, 1.0, 1.0, "E", "", "source must not be empty"),
    ],
)
def test_impossible_coefficients_are_refused(
    value: float, low: float, high: float, tier: str, source: str, rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        Coefficient(value=value, low=low, high=high, tier=tier, source=source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_train_w": [3, 4, 5, "E", "x"]}, "oneplus_12r: p_train_w must be .* got value 3"),
        ({"p_train_w": [3, 2, 5, "E"]}, "oneplus_12r: p_train_w must be .value, low, high"),
        ({"p_train_w": ["3", 2, 5, "E", "x"]}, "p_train_w must begin with numbers, got '3'"),
        ({"p_train_w": None}, "p_train_w must be .value, low, high, tier, source., got None"),
        ({"p_fly_w": [3, 2, 5, "E", "x"]}, r"unknown \['p_fly_w'\], missing \[\]"),
        ({"power_scope": "gross"}, "power_scope must be one of total, net, unknown, got 'gross'"),
        ({"name": ""}, "name of a profile must not be empty"),
        ({"name": 3}, "name of a profile must be a text, got 3"),
    ],
)
def test_broken_profiles_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        device_profile(**{**file_of(PHONE), **change})


def test_a_missing_coefficient_is_named() -> None:
    plain = file_of(PHONE)
    del plain["ram_gb"]
    with pytest.raises(ValueError, match=r"unknown \[\], missing \['ram_gb'\]"):
        device_profile(**plain)


def test_a_folder_must_hold_profiles_named_like_their_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold profiles"):
        load_hardware(tmp_path)
    (tmp_path / "toaster.yaml").write_text(json.dumps(file_of(PHONE)), encoding="utf-8")
    with pytest.raises(ValueError, match="must define the profile toaster, got oneplus_12r"):
        load_hardware(tmp_path)
    (tmp_path / "toaster.yaml").write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"toaster[.]yaml must be a mapping, got list"):
        load_hardware(tmp_path)


def test_profiles_are_values() -> None:
    assert replace(PHONE) == PHONE
    assert len({PHONE, replace(PHONE)}) == 1
