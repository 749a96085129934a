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

from fleettune.energy import RADIO, Floats, Values, coefficients, values
from fleettune.hardware import Coefficient, DeviceProfile
from fleettune.radio import FROM_DEVICE, Choice, Link
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


def drawn(profile: DeviceProfile, radio: Choice, seed: int, count: int) -> Values:
    """Returns draws [count] of every coefficient of a profile and its link."""
    return values(
        profile,
        radio,
        lambda name, item: coefficient_draws(_key(profile, radio, name), item, seed, count),
    )


def probed(
    profile: DeviceProfile, radio: Choice, factors: Mapping[str, Floats], count: int
) -> Values:
    """Returns central values [count], those named in `factors` multiplied by them [count]."""
    ones = np.ones(count)
    return values(profile, radio, lambda name, item: item.value * factors.get(name, ones))


def tiers_of(profile: DeviceProfile, radio: Choice) -> Mapping[str, str]:
    """Returns the tier of every coefficient that prices this profile, by its name."""
    return {name: item.tier for name, item in coefficients(profile, radio)}


def _key(profile: DeviceProfile, radio: Choice, name: str) -> str:
    """Returns whose coefficient it is: the device's, or that of a link all devices have."""
    field = name.removeprefix(RADIO)
    of_link = name != field and (isinstance(radio, Link) or field not in FROM_DEVICE)
    return f"{radio.name if of_link else profile.name}.{name}"
