"""Radio: the published table comes back, a burst by hand, and arrays as numbers."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fleettune.cost.energy import central_values, price_amount
from fleettune.cost.hardware import Coefficient, load_hardware
from fleettune.cost.radio import WIFI, Link, Wifi, cellular, read_link, wifi
from fleettune.cost.workload import Phase, transferring
from fleettune.records import from_record, to_record

CONF = Path(__file__).parents[3] / "conf"
LINKS = {
    file.stem: read_link(yaml.safe_load(file.read_text(encoding="utf-8")))
    for file in sorted((CONF / "link").glob("*.yaml"))
}
HARDWARE = load_hardware(CONF / "hardware")
PHONE = HARDWARE["oneplus_12r"]
MEGABYTE = 1e6


def moved(link: Link, phase: Phase, size_bytes: float) -> tuple[float, float]:
    """Seconds and joules of one burst, as a night is billed for it."""
    at = central_values(PHONE, link)
    time_s, energy_j = price_amount(phase, transferring(size_bytes), at)
    return float(time_s), float(energy_j)


def download(link: Link, size_bytes: float) -> tuple[float, float]:
    return moved(link, Phase.RECEIVE, size_bytes)


def upload(link: Link, size_bytes: float) -> tuple[float, float]:
    return moved(link, Phase.SEND, size_bytes)


def on(name: str, device: str = "oneplus_12r") -> Link:
    return LINKS[name].on(HARDWARE[device])


def without_burst(link: Link, direction: str) -> float:
    """Joules of a megabyte less what a burst costs whatever its size: round trip and tail."""
    move, power = (download, link.rx_w) if direction == "down" else (upload, link.tx_w)
    _, energy_j = move(link, MEGABYTE)
    return energy_j - link.tail_j.value - power.value * link.rtt_s.value


@pytest.mark.parametrize(
    ("name", "down", "up"),
    [("lte", 0.22, 1.07), ("nr_low", 0.19, 0.60), ("nr_mmwave", 0.06, 0.34)],
)
def test_joules_per_megabyte_at_typical_rates_are_the_published_ones(
    name: str, down: float, up: float
) -> None:
    # published with two decimals
    assert without_burst(on(name), "down") == pytest.approx(down, abs=0.005)
    assert without_burst(on(name), "up") == pytest.approx(up, abs=0.005)


@pytest.mark.parametrize(
    ("device", "down", "up", "tolerance"),
    [
        ("oneplus_12r", 0.21, 0.26, 0.005),
        ("pixel_9_pro", 0.024, 0.33, 0.005),
        ("pixel_7", 0.058, 0.28, 0.005),
    ],
)
def test_wifi_takes_power_and_rate_from_the_device(
    device: str, down: float, up: float, tolerance: float
) -> None:
    # Published at 50 Mbit/s, the rate that these profiles have.
    link = on("wifi", device)
    assert link.down_mbps.value == link.up_mbps.value == 50
    assert without_burst(link, "down") == pytest.approx(down, abs=tolerance)
    assert without_burst(link, "up") == pytest.approx(up, abs=tolerance)
    assert (link.down_j_per_mb, link.up_j_per_mb) == (None, None)


def test_ten_megabytes_over_lte_by_hand() -> None:
    # 80 Mbit at 30 Mbit/s = 2.6667 s and 0.05 s of round trip;
    # 0.369 W * 2.7167 s + 0.12 J/MB * 10 MB + 1.3 J of tail = 3.5025 J.
    time_s, energy_j = download(on("lte"), 10 * MEGABYTE)
    assert time_s == pytest.approx(2.71667, abs=1e-5)
    assert energy_j == pytest.approx(1.00245 + 1.2 + 1.3, abs=1e-5)


def test_a_tail_is_paid_once_per_burst() -> None:
    link = on("nr_low")
    at_once, halves = download(link, 2 * MEGABYTE)[1], 2 * download(link, MEGABYTE)[1]
    extra = link.tail_j.value + link.rx_w.value * link.rtt_s.value
    assert halves - at_once == pytest.approx(extra)


def test_a_cellular_link_is_the_same_on_every_device() -> None:
    assert len({LINKS["lte"].on(profile) for profile in HARDWARE.values()}) == 1
    assert LINKS["wifi"] == WIFI  # written twice: once as a default, once to be changed


sizes = st.floats(1, 1e10)


@given(st.sampled_from(sorted(LINKS)), sizes, sizes)
def test_more_bytes_never_cost_less(name: str, one: float, other: float) -> None:
    few, many = sorted((one, other))
    for move in (download, upload):
        assert move(on(name), few) <= move(on(name), many)


@pytest.mark.parametrize("name", sorted(LINKS))
def test_a_configuration_file_is_a_constructor_call(name: str) -> None:
    assert instantiate(OmegaConf.load(CONF / "link" / f"{name}.yaml")) == LINKS[name]


@pytest.mark.parametrize("name", sorted(LINKS))
def test_a_link_survives_a_record(name: str) -> None:
    types = {cls.__name__: cls for cls in (Link, Wifi, Coefficient)}
    assert from_record(to_record(LINKS[name]), types, "link") == LINKS[name]


FIVE = [1.0, 0.5, 2.0, "E", "x"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"rx_w": [1.0, 0.5, 2.0, "E"]}, "link lte: rx_w must be .value, low, high"),
        ({"rx_w": None}, "link lte: rx_w must be .value, low, high"),
        ({"rx_w": ["1", 0.5, 2.0, "E", "x"]}, "rx_w must begin with numbers"),
        ({"tail_j": [0.0, 0.0, 2.0, "E", "x"]}, "link lte: tail_j must be finite with 0 < low"),
        ({"swim_w": FIVE}, r"unknown \['swim_w'\], missing \[\]"),
    ],
)
def test_impossible_links_are_refused(change: dict[str, object], rule: str) -> None:
    plain = yaml.safe_load((CONF / "link" / "lte.yaml").read_text(encoding="utf-8"))
    del plain["_target_"]
    with pytest.raises(ValueError, match=rule):
        cellular(**(plain | change))


def test_missing_coefficients_are_named() -> None:
    with pytest.raises(ValueError, match=r"link wifi must have rtt_s, tail_j; .*missing \['rtt_s"):
        wifi("wifi", tail_j=FIVE)


def test_a_configuration_that_is_no_link_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have a name and a _target_ in .*got None and ''"):
        read_link({"_target_": ""})


@pytest.mark.skipif(
    "FLEETTUNE_DATA" not in os.environ,
    reason="set FLEETTUNE_DATA to the folder with devices/radio_energy.csv",
)
def test_restated_links_equal_the_fitted_table() -> None:
    names = {"LTE": "lte", "5G-NSA-lowband": "nr_low", "5G-mmWave": "nr_mmwave"}
    path = Path(os.environ["FLEETTUNE_DATA"]) / "devices" / "radio_energy.csv"
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["link"] in names]
    assert len(rows) == 6
    for row in rows:
        link = on(names[row["link"]])
        down = row["direction"] == "down"
        power, marginal = (link.rx_w, link.down_j_per_mb) if down else (link.tx_w, link.up_j_per_mb)
        assert marginal is not None
        assert power.value * 1e3 == pytest.approx(float(row["radio_on_power_mw"]))
        assert marginal.value == pytest.approx(float(row["marginal_j_per_mb"]))
        # tails are restated with one decimal
        tails = [float(row[f"tail_power_mw_{end}"]) * 10.7e-3 for end in ("low", "high")]
        assert link.tail_j.low <= tails[0] + 0.05
        assert tails[1] <= link.tail_j.high + 0.05
