"""Sampling: which of the registered devices take part in a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleettune.seeds import Purpose, stream


class Sampling(Protocol):
    """A rule that chooses devices."""

    def choose(self, devices: Sequence[int], round_number: int, seed: int) -> list[int]:
        """Returns the chosen ones, in registry order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Every registered device, every night."""

    def choose(self, devices: Sequence[int], round_number: int, seed: int) -> list[int]:
        """Returns all of them."""
        return list(devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """A uniform sample without replacement, drawn anew every round.

    Attributes:
        sampled: Devices per round.
    """

    sampled: int

    def __post_init__(self) -> None:
        if self.sampled < 1:
            raise ValueError(f"fleet.sampled must be >= 1 device, got {self.sampled}")

    def choose(self, devices: Sequence[int], round_number: int, seed: int) -> list[int]:
        """Returns a keyed sample; all of them where fewer are registered.

        The cost is that of the sample, not of the registry.
        """
        count = min(self.sampled, len(devices))
        rng = stream(seed, Purpose.SAMPLING, round_number)
        places = rng.choice(len(devices), size=count, replace=False, shuffle=False)
        return [devices[int(place)] for place in sorted(places)]
