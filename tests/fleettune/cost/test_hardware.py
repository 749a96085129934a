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
    WORDS,
    Coefficient,
    DeviceProfile,
    FleetMix,
    device_profile,
    load_hardware,
)
from simulations.report.terminal_tables import make_devices_table, make_training_table

CONF = Path(__file__).parents[3] / "conf"
HARDWARE = load_hardware(CONF / "hardware")
PHONE = HARDWARE["oneplus_12r"]
every_profile = pytest.mark.parametrize("profile", HARDWARE.values(), ids=HARDWARE.keys())


def file_of(profile: DeviceProfile) -> dict[str, object]:
    """What a configuration file says of a profile."""
    lists = {name: list(astuple(item)) for name, item in profile.coefficients()}
    absent = {name: None for name in COEFFICIENTS if name not in lists}
    words = {name: getattr(profile, name) for name in WORDS}
    return {**words, **lists, **absent}


def test_thirteen_profiles_are_shipped_and_most_of_their_numbers_are_estimates() -> None:
    assert len(HARDWARE) == 13
    # The published table: 71 E, 25 V, 18 F, 2 M, 2 S. We add to each of eleven devices estimates of
    # two Wi-Fi rates, backward ratio, storage (read, write, power), charger efficiency, usable
    # memory and surroundings; to each of eight phones an estimated charger and four second-hand
    # thermal numbers, to each of three boxes four estimated ones.
    # Since then, power of mid_phone is a difference of measured ones (F). Of EdgeFlowerTune's two
    # devices, rates are fitted and memory measured; the phone has an idle draw (F), a battery (V)
    # and four thermal numbers (S) as the others.
    counts = sum((Counter(profile.tiers()) for profile in HARDWARE.values()), Counter[str]())
    estimates = 71 + 11 * (2 + 1 + 3 + 1 + 1 + 1) + 8 + 3 * 4
    estimates += (25 - 1 - 1 - 1 - 1 - 4) + (23 - 1 - 1)
    assert counts == {"E": estimates, "V": 25 + 1, "F": 18 + 1 + 3, "M": 2 - 1 + 2, "S": 2 + 9 * 4}


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
    assert table.row_count == 317
    assert "none was measured by this project" in str(table.caption)
    assert "Of 317 coefficients: 3 measured (M), 22 fitted to measurements (F)" in str(
        table.caption
    )


def test_the_table_of_training_begins_with_the_least_energy_and_says_what_runs() -> None:
    together = replace(
        PHONE,
        name="logged",
        runtime="[red]CPU",
        p_train_w=Coefficient(value=3.5, low=2.5, high=4.5, tier="M", source="log"),
        eff_forward_gflops=Coefficient(value=100, low=50, high=200, tier="M", source="log"),
    )
    table = make_training_table([PHONE, together])
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    # above 0.5 W idle: 3.0 W over 100 GFLOP/s, 2.0 over 200, 4.0 over 50; 2.18 W over 22.2
    assert [row[0] for row in rows] == ["logged", "oneplus_12r"]
    assert rows[0][1:5] == ("30", "10 to 80", "M, M", "training")
    assert rows[1][1:5] == ("98", "13 to 248", "M, E", "no")
    assert str(rows[0][5]) == "[red]CPU"


def test_net_power_has_no_idle_draw_to_be_taken_off() -> None:
    assert replace(PHONE, power_scope="net").training_pj_per_flop()[0] == 2680 / 22.2
    below = replace(PHONE, p_train_w=PHONE.p_idle_w)
    assert below.training_pj_per_flop()[:2] == (0.0, 0.0)


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
        ({"name": 3}, "name of a profile must be a text, its file's, got 3"),
        ({"runtime": None}, "runtime of a profile must be a text, what runs on the device, got"),
        ({"runtime": ""}, "oneplus_12r: runtime must say what runs on the device, got ''"),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name: [", "must be YAML in UTF-8"),
        (b"\xff", "must be YAML in UTF-8"),
        (b"{" * 8_000, "must be a profile of at most 16384 bytes and 400 brackets"),
        (b"a: !!timestamp x", "must be YAML in UTF-8"),
        (b"a: !!bool x", "must be YAML in UTF-8"),
        (b"a: !!int ''", "must be YAML in UTF-8"),
        (b"3: 4", "must have names as its keys"),
        (b"# " + b"x" * 20_000, "must be a profile of at most 16384 bytes"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "toaster.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=rf"toaster\.yaml {message}"):
        load_hardware(tmp_path)
