"""Joining: devices that become members of the fleet in the middle of a run.

The registry is in the order of joining: whoever is there from the beginning comes first. A device
brings a few days of its user's exchanges with it; what its user said before is not on it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A part of the fleet that joins together.

    Attributes:
        round: The first round in which it takes part, 1 or more.
        share: Share of all devices, > 0 and < 1.
        days: Days of exchanges that its devices bring, the first night's included.

    Raises:
        ValueError: If a value breaks its rule.
    """

    round: int
    share: float
    days: int = 4

    def __post_init__(self) -> None:
        if self.round < 1:
            raise ValueError(f"fleet.join.round must be >= 1, got {self.round}")
        if not 0 < self.share < 1:
            raise ValueError(f"fleet.join.share must be > 0 and < 1, got {self.share}")
        if self.days < 1:
            raise ValueError(f"fleet.join.days must be >= 1 day, got {self.days}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """When the devices of a fleet join.

    Attributes:
        devices: Devices in all, also those that are still to come.
        parts: What joins later, by ascending round; nothing: all are there from the beginning.

    Raises:
        ValueError: If rounds do not ascend, or nobody is there in the first round.
    """

    devices: int = 0
    parts: tuple[Join, ...] = ()

    def __post_init__(self) -> None:
        rounds = [part.round for part in self.parts]
        if rounds != sorted(set(rounds)):
            raise ValueError(f"fleet.join must have ascending rounds, got {rounds}")
        if self.parts and self._firsts[0] < 1:
            raise ValueError(
                f"fleet.join must leave a device for the first round, got {self.devices} devices "
                f"of which {self.devices - self._firsts[0]} join later"
            )

    @property
    def _firsts(self) -> tuple[int, ...]:
        """Number of the first device of every part."""
        firsts: list[int] = []
        left = self.devices
        for part in reversed(self.parts):
            left -= round(part.share * self.devices)
            firsts.append(left)
        return tuple(reversed(firsts))

    def count_joined(self, round_number: int) -> int:
        """Returns how many devices have joined by a round: the first ones of the registry."""
        for part, first in zip(self.parts, self._firsts, strict=True):
            if round_number < part.round:
                return first
        return self.devices

    def part_of(self, device: int) -> Join | None:
        """Returns the part that a device joins with; None for one that is there from the start."""
        found = None
        for part, first in zip(self.parts, self._firsts, strict=True):
            if device >= first:
                found = part
        return found


FROM_THE_START = Joining()
"""A fleet that nobody joins."""
