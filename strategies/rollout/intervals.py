"""95 % intervals: a rate's by Wilson, a mean's by Student's quantile."""

from __future__ import annotations

import math
from dataclasses import dataclass

NORMAL = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
ROUNDING = 1e-9
"""Share of a value by which sums in two orders may differ and still count as equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate between its limits.

    Attributes:
        value: The estimate.
        low: Lower limit.
        high: Upper limit.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low <= value <= high, got {self.low}, {self.value}, {self.high}")

    @property
    def half_width(self) -> float:
        """Half the distance between the limits."""
        return (self.high - self.low) / 2

    def covers(self, truth: float) -> bool:
        """Whether a number lies between the limits, rounding aside."""
        slack = ROUNDING * abs(truth)
        return self.low - slack <= truth <= self.high + slack

    def plain(self) -> dict[str, float]:
        """Returns the interval as JSON can hold it."""
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson(rate: float, size: float) -> Interval:
    """Returns the score interval of a rate (Wilson 1927), within 0 to 1.

    Args:
        rate: Observed rate, from 0 to 1.
        size: Effective number of independent observations, above 0; infinite for a census.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate must be from 0 to 1, got {rate}")
    if not size > 0:
        raise ValueError(f"the size behind a rate must be > 0 observations, got {size}")
    share = NORMAL**2 / size
    middle = (rate + share / 2) / (1 + share)
    spread = NORMAL * math.sqrt(rate * (1 - rate) / size + share / (4 * size)) / (1 + share)
    # at 0 and 1 rounding may put a limit a hair inside the rate
    low, high = min(middle - spread, rate), max(middle + spread, rate)
    return Interval(value=rate, low=max(low, 0.0), high=min(high, 1.0))


def student(degrees: int) -> float:
    """Returns the 97.5 % quantile of Student's t distribution.

    Cornish and Fisher's expansion (Abramowitz and Stegun 1964, eq. 26.7.5): within 0.3 % from 4
    degrees of freedom on, and too small below, where it is refused.

    Raises:
        ValueError: If there are fewer than 4 degrees of freedom.
    """
    if degrees < 4:
        raise ValueError(f"the expansion needs >= 4 degrees of freedom, got {degrees}")
    x = NORMAL
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
