"""Draws every coefficient from its range, or scales its central value for a probe.

A coefficient is drawn once per draw, for all arms together (common random numbers): what two arms
share cancels in their ratio. Where several profiles carry the same estimate (value, range and
source), it is one estimate and drawn once for all of them; otherwise coefficients are independent.

The distribution has half of its mass below the central value and half above, each half a triangle
that ends at low or at high, on the logarithmic scale where high / low > 3 (ranges like those of
throughputs and radio rates) and on the linear scale otherwise. So the central value is the median
of the draws. Most ranges are judgements; this states doubt and is no measured distribution.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from fleettune.cost.energy import Floats, Values, coefficients, pick_values
from fleettune.cost.hardware import Coefficient, DeviceProfile
from fleettune.cost.radio import Radio
from fleettune.seeds import Purpose, stream

DRAWS = 1_000
LOG_FROM = 3.0
"""Ratio of high to low above which a coefficient is drawn on the logarithmic scale."""


def split_triangle(quantiles: Floats, coefficient: Coefficient) -> Floats:
    """Returns a coefficient's values at quantiles [draws]; its central value at one half."""
    if coefficient.low == coefficient.high:
        return np.full(quantiles.shape, coefficient.value)
    ends = np.array([coefficient.low, coefficient.value, coefficient.high])
    is_log = coefficient.high / coefficient.low > LOG_FROM
    low, middle, high = np.log(ends) if is_log else ends
    rising = low + (middle - low) * np.sqrt(2 * np.minimum(quantiles, 0.5))
    falling = high - (high - middle) * np.sqrt(2 * np.minimum(1 - quantiles, 0.5))
    found = np.asarray(np.where(quantiles < 0.5, rising, falling), np.float64)
    return np.exp(found) if is_log else found


def draw_coefficient(key: str, coefficient: Coefficient, seed: int, count: int) -> Floats:
    """Returns draws [count] of one coefficient; its key names it among all of the run."""
    # a stream per name: one more coefficient changes nobody else's numbers
    rng = stream(seed, Purpose.COEFFICIENTS, zlib.crc32(key.encode()))
    return split_triangle(rng.random(count), coefficient)


def draw_coefficients(profile: DeviceProfile, radio: Radio, seed: int, count: int) -> Values:
    """Returns draws [count] of every coefficient of a profile and its link."""
    return pick_values(
        profile,
        radio,
        lambda name, item: draw_coefficient(_key(name, item), item, seed, count),
    )


def scale_coefficients(
    profile: DeviceProfile, radio: Radio, factors: Mapping[str, Floats], count: int
) -> Values:
    """Returns central values [count], those named in `factors` multiplied by them [count]."""
    ones = np.ones(count)
    return pick_values(profile, radio, lambda name, item: item.value * factors.get(name, ones))


def tiers_of(profile: DeviceProfile, radio: Radio) -> Mapping[str, str]:
    """Returns the tier of every coefficient that prices this profile, by its name."""
    return {name: item.tier for name, item in coefficients(profile, radio)}


def _key(name: str, item: Coefficient) -> str:
    """Returns what tells one estimate from another: the same one on two devices is drawn once."""
    return f"{name} {item.value} {item.low} {item.high} {item.source}"
