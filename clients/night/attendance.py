"""Attendance: whether a device works tonight, how long it may, and how its night ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from fleettune.cost.battery import JOULES_PER_WH, charge_battery
from fleettune.cost.hardware import DeviceProfile
from fleettune.fleet.availability import Window


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


def tonight_in(
    window: Window, profile: DeviceProfile, floor: float, deadline_s: float | None
) -> Tonight:
    """Returns what a window allows: work begins once the charge has reached the floor.

    Args:
        window: When the device may work, and how full its battery is when it opens.
        profile: Its hardware.
        floor: State of charge below which no work starts.
        deadline_s: Seconds that the server waits from the device's start; None: for ever.
    """
    wait_s = charging_s(window.soc, floor, profile)
    attends = Attendance.PRESENT
    if window.length_s == 0:
        attends = Attendance.ABSENT
    elif wait_s >= window.usable_s:
        attends = Attendance.STARVED
    return Tonight(
        attends=attends,
        limit_s=max(0.0, window.usable_s - wait_s),
        deadline_s=math.inf if deadline_s is None else deadline_s,
        start_s=window.start_s + wait_s,
        soc=max(window.soc, floor) if profile.battery_wh is not None else 1.0,
    )


def charge_after(soc: float, profile: DeviceProfile, energy_j: float, time_s: float) -> float:
    """Returns the state of charge after work of some joules on the charger."""
    if profile.battery_wh is None or profile.p_charge_w is None or time_s == 0:
        return soc
    efficiency = profile.charger_efficiency.value
    return charge_battery(
        soc=soc,
        capacity_wh=profile.battery_wh.value,
        charge_w=profile.p_charge_w.value / efficiency,
        efficiency=efficiency,
        load_w=energy_j / time_s,
        time_s=time_s,
    )


def charging_s(soc: float, floor: float, profile: DeviceProfile) -> float:
    """Returns how long a resting device charges until its battery has reached the floor."""
    if profile.battery_wh is None or profile.p_charge_w is None or soc >= floor:
        return 0.0
    surplus_w = profile.p_charge_w.value - profile.p_idle_w.value
    return (floor - soc) * profile.battery_wh.value * JOULES_PER_WH / surplus_w
