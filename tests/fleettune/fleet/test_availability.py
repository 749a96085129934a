"""Claims about windows: what a night offers a device, and what its parameters change."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleettune.fleet.availability import NIGHT_S, Always, Availability, Nightly, Window
from fleettune.records import from_record, to_record
from fleettune.seeds import Purpose, stream
from simulations.experiment.targets import build_target

CONF = Path(__file__).parents[3] / "conf" / "availability"


def option(name: str) -> Nightly:
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    return build_target(node, "availability")


NIGHTLY = option("nightly")
NIGHTS = list(product(range(200), range(5)))


def windows(availability: Availability, seed: int = 0) -> list[Window]:
    return [availability.window(seed, device, night) for device, night in NIGHTS]


def test_always_is_the_whole_round_with_a_full_battery() -> None:
    window = Always().window(0, 3, 7)
    assert window == Window(start_s=0.0, length_s=86_400.0, soc=1.0, stops_s=None)
    assert window.usable_s == NIGHT_S


def test_an_interrupted_window_holds_what_came_before() -> None:
    assert Window(start_s=0, length_s=100, soc=0.5, stops_s=40).usable_s == 40


def test_without_any_spread_a_night_is_its_means() -> None:
    spreads = {f.name: 0.0 for f in fields(Nightly) if f.name.endswith(("spread_h", "jitter_h"))}
    plain = replace(NIGHTLY, **spreads, soc_spread=0, soc_jitter=0, charging=1, wifi=1)
    # 11 h after noon is 39 600 s; 6.5 h are 23 400 s.
    assert plain.window(0, 1, 2) == Window(start_s=39_600, length_s=23_400, soc=0.45)


def test_a_night_follows_from_seed_device_and_night() -> None:
    assert windows(NIGHTLY) == windows(option("nightly"))
    first = NIGHTLY.window(0, 1, 2)
    others = [NIGHTLY.window(1, 1, 2), NIGHTLY.window(0, 2, 2), NIGHTLY.window(0, 1, 3)]
    assert all(other.start_s != first.start_s for other in others)


def test_habits_and_nights_are_streams_of_their_own() -> None:
    habits = stream(0, Purpose.AVAILABILITY, 4).random(4)
    assert all((habits != stream(0, Purpose.AVAILABILITY, 4, n).random(4)).all() for n in range(9))


def test_a_device_has_habits() -> None:
    steady = replace(NIGHTLY, start_jitter_h=0.0)
    assert len({steady.window(0, 1, night).start_s for night in range(9)}) == 1
    assert len({steady.window(0, device, 0).start_s for device in range(9)}) == 9


def test_shares_are_shares_of_nights_and_devices() -> None:
    nights = windows(option("flaky"))
    # 0.85 * 0.90 = 0.765 of 1000 nights; 4 standard errors are 0.054.
    assert sum(w.length_s > 0 for w in nights) / 1000 == pytest.approx(0.765, abs=0.054)
    stopped = {device for (device, _), w in zip(NIGHTS, nights, strict=True) if w.stops_s}
    # A flaky device is seen at it unless 5 nights pass: 1 - (1 - 0.765 * 0.5)^5 = 0.91 of 30 %.
    assert len(stopped) / 200 == pytest.approx(0.273, abs=0.126)
    low = {device for (device, _), w in zip(NIGHTS, nights, strict=True) if w.soc < 0.15}
    starved = {d for d in low if all(option("flaky").window(0, d, n).soc < 0.15 for n in range(20))}
    assert 1 <= len(starved) <= 22  # 5 % of 200 are 10, within 4 standard errors


def test_a_parameter_changes_only_what_it_is_about() -> None:
    for calm, flaky in zip(windows(NIGHTLY), windows(replace(NIGHTLY, flaky=0.3)), strict=True):
        assert replace(flaky, stops_s=None) == calm
        assert flaky.stops_s is None or flaky.stops_s <= calm.length_s
    offline = windows(replace(NIGHTLY, wifi=0.0))
    assert all(w.length_s == 0 for w in offline)
    assert [w.soc for w in offline] == [w.soc for w in windows(NIGHTLY)]


def test_more_flaky_devices_include_the_fewer() -> None:
    some, more = (
        [w.stops_s is not None for w in windows(replace(NIGHTLY, flaky=share))]
        for share in (0.2, 0.6)
    )
    assert sum(some) < sum(more)
    assert all(m for s, m in zip(some, more, strict=True) if s)


def test_wild_parameters_still_give_a_window_inside_the_round() -> None:
    wild = replace(NIGHTLY, start_jitter_h=20.0, length_jitter_h=20.0, soc_jitter=1.0)
    assert all(w.start_s + w.length_s <= NIGHT_S + 1e-6 for w in windows(wild))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"charging": 1.2}, "charging must be finite, >= 0 and <= 1, got 1.2"),
        ({"flaky": -0.1}, "flaky must be finite"),
        ({"soc": float("nan")}, "soc must be finite"),
        ({"start_h": 25.0}, "start_h must be finite, >= 0 h and <= 24 h, got 25.0"),
        ({"length_jitter_h": -1.0}, "length_jitter_h must be"),
        ({"interruption": 2.0}, "interruption must be"),
        ({"starved_soc": 7.0}, "starved_soc must be"),
    ],
)
def test_a_bad_parameter_is_named(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        replace(NIGHTLY, **change)


@pytest.mark.parametrize(
    "change", [{"start_s": -1.0}, {"length_s": float("inf")}, {"soc": 1.1}, {"stops_s": 11.0}]
)
def test_a_window_keeps_its_rules(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(Window(start_s=0.0, length_s=10.0, soc=0.5), **change)


def test_a_round_has_a_length() -> None:
    with pytest.raises(ValueError, match=r"night_s must be finite and > 0 s, got 0"):
        Always(night_s=0.0)


@pytest.mark.parametrize("availability", [Always(), NIGHTLY])
def test_an_availability_comes_back_from_its_record(availability: Always | Nightly) -> None:
    types = {"Always": Always, "Nightly": Nightly}
    assert from_record(to_record(availability), types, "availability") == availability
    assert isinstance(availability, Availability)


def test_interruptions_happen_soon_after_the_opening_where_that_is_asked() -> None:
    flaky = option("flaky")
    stops = [flaky.window(0, device, 0).stops_s for device in range(2000)]
    found = [stop for stop in stops if stop is not None]
    # 30 % of devices, every second night, where there is a window at all (0.85 * 0.90)
    assert len(found) / len(stops) == pytest.approx(0.3 * 0.5 * 0.85 * 0.9, abs=0.02)
    assert max(found) <= 1800
