"""Attendance: whether a device works tonight, how long it may, and how its night ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


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
    """

    attends: Attendance = Attendance.PRESENT
    limit_s: float = math.inf
    deadline_s: float = math.inf
