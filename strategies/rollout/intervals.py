"""95 % intervals: a rate's by Wilson, a mean's by Student's quantile."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtrit

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


def student_quantile(degrees: int) -> float:
    """Returns the 97.5 % quantile of Student's t distribution.

    Raises:
        ValueError: If there is no degree of freedom.
    """
    if degrees < 1:
        raise ValueError(f"Student's quantile needs >= 1 degree of freedom, got {degrees}")
    return float(stdtrit(degrees, 0.975))
