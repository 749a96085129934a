"""The virtual clock: when devices reply, who is late, when a round closes.

Rounds are nights of equal length; round r begins at r * night_s. Devices start when their windows
open, which differ by hours, and a vendor sets the time that an update may take; so the deadline
counts from the moment a device starts its work tonight, not from the round's beginning. The server
knows that moment: it is when the device asks for its orders.

Nothing here sleeps or reads a real clock; a round's times follow from its replies alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import polars as pl

from fleettune.fleet.availability import NIGHT_S

_STAY = ("device", "start_s", "night_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """A device's time at work in one round; a device without a window tonight has none.

    Attributes:
        device: Its number.
        start_s: Start of its work, in seconds after the round's beginning.
        duration_s: From there to its reply.
    """

    device: int
    start_s: float
    duration_s: float

    def __post_init__(self) -> None:
        for name in ("start_s", "duration_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"{name} of device {self.device} must be finite and >= 0 s, got {value}"
                )

    @property
    def finish_s(self) -> float:
        """Its reply, in seconds after the round's beginning."""
        return self.start_s + self.duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTime:
    """A round in virtual time; seconds since the beginning of round 0.

    Attributes:
        round: The round.
        begins_s: Its beginning.
        closes_s: When the server has heard of, or given up, every device.
        ends_s: The next round's beginning.
        arrivals: (device, time) of every reply in time, in order of time, then device.
        late: Devices whose replies came too late, ascending.
    """

    round: int
    begins_s: float
    closes_s: float
    ends_s: float
    arrivals: tuple[tuple[int, float], ...]
    late: tuple[int, ...]

    @property
    def in_time(self) -> tuple[int, ...]:
        """Devices whose replies count, ascending."""
        return tuple(sorted(device for device, _ in self.arrivals))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClock:
    """The rule for time.

    Attributes:
        night_s: Length of a round.
        deadline_s: Seconds that a device may take from the start of its work; None: until the
            round ends.
    """

    night_s: float = NIGHT_S
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.night_s < math.inf:
            raise ValueError(f"night_s must be finite and > 0 s, got {self.night_s}")
        if self.deadline_s is not None and not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s must be null or finite and > 0 s, got {self.deadline_s}")

    def is_late(self, stay: Stay) -> bool:
        """Returns whether a reply comes after its deadline, or after its round."""
        return stay.finish_s > self._given_up_s(stay)

    def round_time(self, round_: int, stays: Iterable[Stay]) -> RoundTime:
        """Returns the times of a round, whatever the order of its stays.

        A round closes with its last reply, or, where a device is late, when that one is given up.
        One without any device closes at its end: the server waits for somebody to come.

        Raises:
            ValueError: If a device stays twice, or the round is negative.
        """
        if round_ < 0:
            raise ValueError(f"round must be >= 0, got {round_}")
        ordered = sorted(stays, key=lambda stay: stay.device)
        for before, stay in pairwise(ordered):
            if before.device == stay.device:
                raise ValueError(f"device {stay.device} must stay once in round {round_}, got more")
        begins_s = round_ * self.night_s
        replies = [
            (begins_s + stay.finish_s, stay.device) for stay in ordered if not self.is_late(stay)
        ]
        waits = [min(stay.finish_s, self._given_up_s(stay)) for stay in ordered]
        return RoundTime(
            round=round_,
            begins_s=begins_s,
            closes_s=begins_s + max(waits, default=self.night_s),
            ends_s=begins_s + self.night_s,
            arrivals=tuple((device, time_s) for time_s, device in sorted(replies)),
            late=tuple(stay.device for stay in ordered if self.is_late(stay)),
        )

    def _given_up_s(self, stay: Stay) -> float:
        """Returns when the server stops waiting for a device, after the round's beginning."""
        if self.deadline_s is None:
            return self.night_s
        return min(stay.start_s + self.deadline_s, self.night_s)


def timeline(rows: pl.DataFrame, clock: RoundClock) -> pl.DataFrame:
    """Returns every arm's rounds in virtual time, from the rows of a run.

    Columns: arm, round, begins_s, closes_s, in_time, late.
    """
    worked = rows.filter(pl.col("night_s") > 0).sort("arm", "round", "device")
    keys = rows.select("arm", "round").unique().sort("arm", "round").rows()
    groups = {
        key: [Stay(device=d, start_s=s, duration_s=n) for d, s, n in part.select(_STAY).rows()]
        for key, part in worked.group_by("arm", "round", maintain_order=True)
    }
    lines: list[dict[str, object]] = []
    for arm, round_ in keys:
        time = clock.round_time(round_, groups.get((arm, round_), []))
        lines.append(
            {
                "arm": arm,
                "round": round_,
                "begins_s": time.begins_s,
                "closes_s": time.closes_s,
                "in_time": len(time.arrivals),
                "late": len(time.late),
            }
        )
    return pl.DataFrame(lines)
