"""Battery: state of charge over a stretch of constant load, with or without a charger.

    d(SoC)/dt = (P_charge * efficiency - P_load) / capacity        0 <= SoC <= 1

The charger carries the load first; what is left over fills the battery, what is missing comes out
of it. A full battery takes no more, and an empty one gives no more. Simulated, never measured.

Left out: taper of the current near full, losses inside the battery (the efficiency covers both
charger and cell), ageing, and capacity lost to cold.
"""

from __future__ import annotations

import math

JOULES_PER_WH = 3_600.0
SOC_FLOOR = 0.20
"""Charge below which no work starts: MobileFineTuner's scheduler, arXiv 2512.08211 (tier S)."""


def charge_battery(
    *,
    soc: float,
    capacity_wh: float,
    charge_w: float,
    efficiency: float,
    load_w: float,
    time_s: float,
) -> float:
    """Returns the state of charge after a constant load, from 0 to 1.

    Args:
        soc: State of charge at the beginning, from 0 to 1.
        capacity_wh: Capacity.
        charge_w: Power that the charger draws from the wall at most; 0 when unplugged.
        efficiency: Joules that reach the device per joule from the wall.
        load_w: Power of the whole device.
        time_s: Length of the stretch.

    Raises:
        ValueError: If a quantity is out of its range; names it.
    """
    if not 0 <= soc <= 1:
        raise ValueError(f"soc must be from 0 to 1, got {soc}")
    if not 0 < capacity_wh < math.inf:
        raise ValueError(f"capacity_wh must be finite and > 0 Wh, got {capacity_wh}")
    if not 0 < efficiency <= 1:
        raise ValueError(f"efficiency must be > 0 and <= 1, got {efficiency}")
    for name, value in (("charge_w", charge_w), ("load_w", load_w), ("time_s", time_s)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and >= 0, got {value}")
    capacity_j = capacity_wh * JOULES_PER_WH
    surplus_j = charge_w * efficiency * time_s - load_w * time_s
    if surplus_j >= 0:
        return min(soc + min(surplus_j, (1 - soc) * capacity_j) / capacity_j, 1.0)
    return max(soc - min(-surplus_j, soc * capacity_j) / capacity_j, 0.0)
