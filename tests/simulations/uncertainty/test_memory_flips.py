"""Claims about memory under draws: by hand where nothing is drawn, a share where something is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fleettune.cost.hardware import Coefficient, DeviceProfile, load_hardware
from fleettune.cost.radio import WIFI
from simulations.uncertainty.memory_flips import memory_flips

PHONE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["mid_phone"]


def known(value: float, low: float, high: float) -> Coefficient:
    return Coefficient(value=value, low=low, high=high, tier="E", source="made up")


def phone(low_gb: float, high_gb: float) -> DeviceProfile:
    """A phone of 8 GB, give or take, half of it usable."""
    return replace(PHONE, ram_gb=known(8, low_gb, high_gb), usable_ram=known(0.5, 0.5, 0.5))


def rows(*peaks: tuple[float, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "arm": ["a"] * len(peaks) + ["b"],
            "profile": [PHONE.name] * (len(peaks) + 1),
            "peak_bytes": [round(peak * 1e9) for peak, _ in peaks] + [0],
            "reason": [reason for _, reason in peaks] + ["always"],
        }
    )


def test_without_ranges_nothing_flips_and_an_arm_without_tunes_is_unknown() -> None:
    fixed = rows((3.9, "always"), (4.1, "over_memory"))
    assert memory_flips(fixed, [phone(8, 8)], WIFI, 0, 50) == {"a": 0.0, "b": None}


def test_a_tune_at_the_edge_flips_in_half_of_the_draws() -> None:
    # Triangular around 8 GB from 6 to 10: half of it exceeds 4 GB in every second draw.
    share = memory_flips(rows((4.0, "always")), [phone(6, 10)], WIFI, 0, 4000)["a"]
    assert share == pytest.approx(0.5, abs=0.03)
    both = memory_flips(rows((4.0, "always"), (4.0, "over_memory")), [phone(6, 10)], WIFI, 0, 500)
    assert both["a"] == pytest.approx(0.5)
