"""Carbon: grams of CO2e of energy taken from the grid of a country. A view, never a ledger.

    g = kWh * intensity        1 kWh = 3.6 MJ

Pass joules at the wall: what a device draws, divided by the efficiency of its charger. Intensities
are averages of a year's generation, restated from the energy mix of codecarbon 3.3.2 (MIT), which
takes them from Our World in Data and Ember (CC BY 4.0). Left out: the hour of the day, marginal
plants, losses of the grid, imports, and what making a device took.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

JOULES_PER_KWH = 3.6e6
WORLD = "WORLD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """How much CO2e a kilowatt-hour of a country carries.

    Attributes:
        country: Its name.
        g_per_kwh: Grams of CO2e per kWh generated.
        year: The year of which it is the average.
    """

    country: str
    g_per_kwh: float
    year: int


INTENSITIES: Mapping[str, Intensity] = {
    code: Intensity(country=country, g_per_kwh=g_per_kwh, year=year)
    for code, country, g_per_kwh, year in (
        (WORLD, "World", 475.0, 2022),
        ("AUS", "Australia", 548.692, 2023),
        ("AUT", "Austria", 110.812, 2023),
        ("BRA", "Brazil", 98.348, 2023),
        ("CAN", "Canada", 170.043, 2023),
        ("CHE", "Switzerland", 34.843, 2023),
        ("CHN", "China", 582.317, 2023),
        ("DEU", "Germany", 380.95, 2023),
        ("ESP", "Spain", 174.05, 2023),
        ("FRA", "France", 56.039, 2023),
        ("GBR", "United Kingdom", 237.589, 2023),
        ("IDN", "Indonesia", 675.931, 2022),
        ("IND", "India", 713.441, 2023),
        ("ITA", "Italy", 330.718, 2023),
        ("JPN", "Japan", 485.392, 2023),
        ("KOR", "South Korea", 430.567, 2023),
        ("MEX", "Mexico", 507.245, 2023),
        ("NGA", "Nigeria", 523.247, 2023),
        ("NOR", "Norway", 30.08, 2023),
        ("POL", "Poland", 661.926, 2023),
        ("SWE", "Sweden", 40.695, 2023),
        ("USA", "United States", 369.473, 2023),
        ("ZAF", "South Africa", 707.686, 2023),
    )
}
"""By ISO 3166 code of three letters, and the world as a whole."""


def grams(joules: float, country: str = WORLD) -> float:
    """Returns the grams of CO2e of joules taken from a country's grid.

    Raises:
        ValueError: If the country is not among `INTENSITIES`, or joules are negative.
    """
    if country not in INTENSITIES:
        raise ValueError(f"country must be one of {', '.join(INTENSITIES)}, got {country!r}")
    if not 0 <= joules < math.inf:
        raise ValueError(f"joules must be finite and >= 0 J, got {joules}")
    return joules / JOULES_PER_KWH * INTENSITIES[country].g_per_kwh
