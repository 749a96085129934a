"""Foresight: which decisions the experiment's observer judges by the days to come.

It is part of the simulated fleet's file, as what the observer writes is, and of no message: neither
a rule on the device nor the server learns of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """Whose reuse or retune the observer weighs against the other one, charged to nobody.

    Attributes:
        arms: Names of the arms; none: nobody's.
        days: Days to come that both patches are scored on.

    Raises:
        ValueError: If `days` is below 1 day.
    """

    arms: tuple[str, ...] = ()
    days: int = 1

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ValueError(f"quality.counterfactual_days must be >= 1 day, got {self.days}")

    def days_of(self, arm: str) -> int:
        """Returns how many days are looked at for an arm; 0 where its decisions are not judged."""
        return self.days if arm in self.arms else 0
