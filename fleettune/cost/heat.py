"""Heat: how long work takes on a device that slows down when it is hot.

One resistor and one capacitor, in closed form:

    tau * dT/dt = T_ambient + R * P(t) - T

Below the cap the device works at full speed and draws P = idle + power. At the cap it slows down
to the share eta of its speed whose steady temperature is the cap,

    eta = ((T_cap - T_ambient) / R - idle) / power,

but never below `slowest`; where even that is too hot, the temperature goes on above the cap. The
power above idle falls with eta (tier E: no voltage scaling), so the joules of the work itself stay
what they were and only the idle draw runs longer.

Left out: more than one node (case and chip), radio and charging heat, discrete clock steps.
Its coefficients stand in the device profile. Simulated, never measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The thermal side of a device.

    Attributes:
        ambient_c: Temperature around it.
        resistance_k_per_w: Kelvin above ambient per watt, in the steady state.
        tau_s: Time constant.
        cap_c: Temperature at which it slows down.
        slowest: Share of full speed below which it never goes, above 0 and up to 1.
    """

    ambient_c: float
    resistance_k_per_w: float
    tau_s: float
    cap_c: float
    slowest: float

    def __post_init__(self) -> None:
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise ValueError(f"{field.name} must be finite, got {getattr(self, field.name)}")
        for name in ("resistance_k_per_w", "tau_s", "slowest"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.slowest > 1:
            raise ValueError(f"slowest must be <= 1, got {self.slowest}")

    def steady_c(self, power_w: float) -> float:
        """Returns the temperature that a constant power of the whole device leads to."""
        return self.ambient_c + power_w * self.resistance_k_per_w


def throttled_s(node: Node, work_s: float, power_w: float, idle_w: float, start_c: float) -> float:
    """Returns the seconds that work takes a device that it heats.

    Args:
        node: Where the heat goes.
        work_s: Seconds that the work takes at full speed.
        power_w: Power above idle at full speed.
        idle_w: Power of the device when it does nothing.
        start_c: Temperature at the beginning; `node.steady_c(idle_w)` for a rested device. Above
            the cap, the work begins slowed down.

    Raises:
        ValueError: If a time or a power is negative.
    """
    for name, value in (("work_s", work_s), ("power_w", power_w), ("idle_w", idle_w)):
        if value < 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
    room_w = (node.cap_c - node.ambient_c) / node.resistance_k_per_w - idle_w
    eta = min(max(room_w / max(power_w, _TINY), node.slowest), 1.0)
    full_c = node.steady_c(idle_w + power_w)
    # where full speed never reaches the cap, eta is 1 and the split into two phases is harmless
    excess = max(full_c - node.cap_c, _TINY)
    to_cap_s = node.tau_s * float(np.log(max(full_c - start_c, excess) / excess))
    free_s = min(work_s, to_cap_s)
    return free_s + (work_s - free_s) / eta
