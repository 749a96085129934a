"""Carbon: arithmetic by hand, the published figures, and countries by name."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.cost.carbon import INTENSITIES, WORLD, grams


def test_a_retune_from_scratch_by_hand() -> None:
    # 15.7 kJ = 4.361 Wh; at 475 g per kWh 2.07 g. A charger of 1/2.9 makes it 6.0 g.
    assert grams(15.7e3) == pytest.approx(2.07, abs=0.005)
    assert grams(15.7e3 * 2.9, WORLD) == pytest.approx(6.0, abs=0.01)


@pytest.mark.parametrize(
    ("country", "g_per_kwh"),
    [("USA", 369), ("FRA", 56), ("DEU", 381), ("CHN", 582), ("IND", 713)],
)
def test_a_kilowatt_hour_is_the_published_figure(country: str, g_per_kwh: float) -> None:
    # published without decimals
    assert grams(3.6e6, country) == pytest.approx(g_per_kwh, abs=0.5)


@given(st.floats(1e-9, 1e12), st.sampled_from(sorted(INTENSITIES)))
def test_grams_are_proportional(joules: float, country: str) -> None:
    assert grams(2 * joules, country) == 2 * grams(joules, country)


def test_about_twenty_countries_are_there() -> None:
    assert len(INTENSITIES) == 1 + 22
    assert {intensity.year for intensity in INTENSITIES.values()} <= {2022, 2023}


def test_an_unknown_country_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"one of WORLD, AUS, .* ZAF, got 'ATL'"):
        grams(1.0, "ATL")
    with pytest.raises(ValueError, match="joules must be finite and >= 0 J, got -1"):
        grams(-1.0, "DEU")


@pytest.mark.skipif(
    "FLEETTUNE_DATA" not in os.environ,
    reason="set FLEETTUNE_DATA to the folder with devices/carbon_intensity_by_country.csv",
)
def test_restated_intensities_equal_the_published_table() -> None:
    path = Path(os.environ["FLEETTUNE_DATA"]) / "devices" / "carbon_intensity_by_country.csv"
    with path.open(encoding="utf-8") as file:
        rows = {row["iso3"]: row for row in csv.DictReader(file)}
    for code, ours in INTENSITIES.items():
        if code != WORLD:  # not in the table by country
            row = rows[code]
            theirs = (row["country"], float(row["gco2e_per_kwh"]), int(row["year"]))
            assert (ours.country, ours.g_per_kwh, ours.year) == theirs
