"""Attendance: whether a device works tonight, how long it may, and how its night ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from fleettune.availability import Window
from fleettune.battery import may_start


class Attendance(StrEnum):
    """How a device took part in a round."""

    PRESENT = "present"
    ABSENT = "absent"
    STARVED = "starved"
    INTERRUPTED = "interrupted"
    LATE = "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tonight:
    """What a night allows.

    Attributes:
        attends: Whether the device works at all: present, absent (never on its charger and Wi-Fi
            with its user asleep) or starved (its battery below the floor).
        limit_s: Seconds of work after which it is taken away; what was begun is lost.
        deadline_s: Seconds of work after which the server no longer waits for its reply.
        start_s: Beginning of its work, in seconds after the round's.
        soc: State of charge then, from 0 to 1.
    """

    attends: Attendance = Attendance.PRESENT
    limit_s: float = math.inf
    deadline_s: float = math.inf
    start_s: float = 0.0
    soc: float = 1.0


def tonight_in(window: Window, floor: float, deadline_s: float | None) -> Tonight:
    """Returns what a window allows.

    Args:
        window: When the device may work.
        floor: State of charge below which no work starts.
        deadline_s: Seconds that the server waits from the device's start; None: for ever.
    """
    attends = Attendance.PRESENT
    if window.length_s == 0:
        attends = Attendance.ABSENT
    elif not may_start(window.soc, floor):
        attends = Attendance.STARVED
    return Tonight(
        attends=attends,
        limit_s=window.usable_s,
        deadline_s=math.inf if deadline_s is None else deadline_s,
        start_s=window.start_s,
        soc=window.soc,
    )
