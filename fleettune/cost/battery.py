"""Battery: state of charge over a stretch of constant load, with or without a charger.

    d(SoC)/dt = (P_charge * efficiency - P_load) / capacity        0 <= SoC <= 1

The charger carries the load first; what is left over fills the battery, what is missing comes out
of it. A full battery takes no more, and the charger then draws what the load needs; an empty one
gives no more, and the load goes unserved. Simulated, never measured.

Left out: taper of the current near full, losses inside the battery (the efficiency covers both
charger and cell), ageing, and capacity lost to cold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

JOULES_PER_WH = 3_600.0
SOC_FLOOR = 0.20
"""Charge below which no work starts: MobileFineTuner's scheduler, arXiv 2512.08211 (tier S)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a stretch of time did to a battery: wall_j * efficiency + battery_j = served_j.

    Attributes:
        soc: State of charge at the end, from 0 to 1; 1 for a device on mains.
        wall_j: Joules drawn from the wall.
        battery_j: Joules taken from the battery; negative where it was filled.
        served_j: Joules that the load received; less than asked for once the battery is empty.
    """

    soc: float
    wall_j: float
    battery_j: float
    served_j: float


def charge_battery(
    *,
    soc: float,
    capacity_wh: float | None,
    charge_w: float,
    efficiency: float,
    load_w: float,
    time_s: float,
) -> Charge:
    """Returns what becomes of a battery under a constant load.

    Args:
        soc: State of charge at the beginning, from 0 to 1.
        capacity_wh: Capacity; None for a device on mains, which has no battery and whose supply
            always carries its load.
        charge_w: Power that the charger draws from the wall at most; 0 when unplugged.
        efficiency: Joules that reach the device per joule from the wall.
        load_w: Power of the whole device.
        time_s: Length of the stretch.

    Raises:
        ValueError: If a quantity is out of its range; names it.
    """
    _check(soc, capacity_wh, efficiency)
    for name, value in (("charge_w", charge_w), ("load_w", load_w), ("time_s", time_s)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and >= 0, got {value}")
    asked_j = load_w * time_s
    if capacity_wh is None:
        return Charge(soc=1.0, wall_j=asked_j / efficiency, battery_j=0.0, served_j=asked_j)
    capacity_j = capacity_wh * JOULES_PER_WH
    surplus_j = charge_w * efficiency * time_s - asked_j
    if surplus_j >= 0:
        stored_j = min(surplus_j, (1 - soc) * capacity_j)
        wall_j = (asked_j + stored_j) / efficiency
        end = min(soc + stored_j / capacity_j, 1.0)
        return Charge(soc=end, wall_j=wall_j, battery_j=-stored_j, served_j=asked_j)
    wall_j = charge_w * time_s
    drawn_j = min(-surplus_j, soc * capacity_j)
    end = max(soc - drawn_j / capacity_j, 0.0)
    served_j = wall_j * efficiency + drawn_j
    return Charge(soc=end, wall_j=wall_j, battery_j=drawn_j, served_j=served_j)


def _check(soc: float, capacity_wh: float | None, efficiency: float) -> None:
    if not 0 <= soc <= 1:
        raise ValueError(f"soc must be from 0 to 1, got {soc}")
    if capacity_wh is not None and not 0 < capacity_wh < math.inf:
        raise ValueError(f"capacity_wh must be None or finite and > 0 Wh, got {capacity_wh}")
    if not 0 < efficiency <= 1:
        raise ValueError(f"efficiency must be > 0 and <= 1, got {efficiency}")
