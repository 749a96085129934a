"""Draws: the range of every coefficient as random numbers, and probes beside its central value.

A coefficient is drawn once per draw, for all devices of its profile and all arms together (common
random numbers): what two arms share cancels in their ratio. Coefficients and profiles are drawn
independently of each other, so an error that all profiles share, such as of home Wi-Fi, is spread
and totals of a mixed fleet look somewhat surer than they are.

The distribution is triangular from low over the value to high, on the logarithmic scale where
high / low > 3 (ranges like those of throughputs and radio rates) and on the linear scale otherwise.
Most ranges are judgements, so this states doubt; it is no measured distribution. The central value
need not be the median of the draws.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from fleettune.energy import Floats, Values, values
from fleettune.hardware import Coefficient, DeviceProfile
from fleettune.seeds import Purpose, stream

DRAWS = 1_000
LOG_FROM = 3.0
"""Ratio of high to low above which a coefficient is drawn on the logarithmic scale."""


def triangular(quantiles: Floats, coefficient: Coefficient) -> Floats:
    """Returns a coefficient's values at quantiles [draws] of its triangular distribution."""
    if coefficient.low == coefficient.high:
        return np.full(quantiles.shape, coefficient.value)
    ends = np.array([coefficient.low, coefficient.value, coefficient.high])
    is_log = coefficient.high / coefficient.low > LOG_FROM
    low, mode, high = np.log(ends) if is_log else ends
    width = high - low
    rising = low + np.sqrt(quantiles * width * (mode - low))
    falling = high - np.sqrt((1 - quantiles) * width * (high - mode))
    found = np.asarray(np.where(quantiles * width < mode - low, rising, falling), np.float64)
    return np.exp(found) if is_log else found


def coefficient_draws(key: str, coefficient: Coefficient, seed: int, count: int) -> Floats:
    """Returns draws [count] of one coefficient; its key names it among all of the run."""
    # a stream per name: one more coefficient changes nobody else's numbers
    rng = stream(seed, Purpose.COEFFICIENTS, zlib.crc32(key.encode()))
    return triangular(rng.random(count), coefficient)


def drawn(profile: DeviceProfile, seed: int, count: int) -> Values:
    """Returns draws [count] of every coefficient of a profile."""
    return values(
        profile,
        lambda name, item: coefficient_draws(f"{profile.name}.{name}", item, seed, count),
    )


def probed(profile: DeviceProfile, factors: Mapping[str, Floats], count: int) -> Values:
    """Returns central values [count], those named in `factors` multiplied by them [count]."""
    ones = np.ones(count)
    return values(profile, lambda name, item: item.value * factors.get(name, ones))


def tiers_of(profile: DeviceProfile) -> Mapping[str, str]:
    """Returns the tier of every coefficient that prices this profile, by its name."""
    found: dict[str, str] = {}

    def note(name: str, item: Coefficient) -> np.float64:
        found[name] = item.tier
        return np.float64(item.value)

    values(profile, note)
    return found
