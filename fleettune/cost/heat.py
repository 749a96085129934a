"""Heat: how long work takes on a device that slows down when it is hot.

One resistor and one capacitor, in closed form:

    tau * dT/dt = T_ambient + R * P(t) - T

Below the cap the device works at full speed and draws P = idle + power. At the cap it slows down
to the share eta of its speed whose steady temperature is the cap,

    eta = ((T_cap - T_ambient) / R - idle) / power,

but never below `slowest`; where even that is too hot, the temperature goes on above the cap. The
power above idle falls with eta (tier E: no voltage scaling), so the joules of the work itself stay
what they were and only the idle draw runs longer. All quantities may be arrays of one shape.

Left out: more than one node (case and chip), radio and charging heat, discrete clock steps.
Its coefficients stand in the device profile. Simulated, never measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Quantity: TypeAlias = float | NDArray[np.float64]
"""One number, or one per element of a Monte Carlo."""
Truth: TypeAlias = bool | np.bool_ | NDArray[np.bool_]

_TINY = 1e-12
_ROUNDING_K = 1e-6
"""Kelvin above the cap that are rounding of a temperature held at it."""


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

    ambient_c: Quantity
    resistance_k_per_w: Quantity
    tau_s: Quantity
    cap_c: Quantity
    slowest: Quantity

    def __post_init__(self) -> None:
        for field in fields(self):
            _require(field.name, getattr(self, field.name), np.isfinite, "finite")
        for name in ("resistance_k_per_w", "tau_s", "slowest"):
            _require(name, getattr(self, name), lambda value: value > 0, "> 0")
        _require("slowest", self.slowest, lambda value: value <= 1, "<= 1")

    def steady_c(self, power_w: Quantity) -> Quantity:
        """Returns the temperature that a constant power of the whole device leads to."""
        return self.ambient_c + power_w * self.resistance_k_per_w


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """What heat did to some work.

    Attributes:
        time_s: How long the work took.
        energy_j: Joules of the whole device during that time.
        slowed_s: Seconds of it at reduced speed.
        end_c: Temperature at its end.
        is_over_cap: Whether it ended above the cap: even the slowest speed was too hot.
    """

    time_s: Quantity
    energy_j: Quantity
    slowed_s: Quantity
    end_c: Quantity
    is_over_cap: Truth


def throttle(
    node: Node, work_s: Quantity, power_w: Quantity, idle_w: Quantity, start_c: Quantity
) -> Heat:
    """Returns time, joules and temperature of work that heats its device.

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
        _require(name, value, lambda value: value >= 0, ">= 0")
    room_w = (node.cap_c - node.ambient_c) / node.resistance_k_per_w - idle_w
    eta = np.minimum(np.maximum(room_w / np.maximum(power_w, _TINY), node.slowest), 1.0)
    full_c, slow_c = node.steady_c(idle_w + power_w), node.steady_c(idle_w + eta * power_w)
    # Where full speed never reaches the cap, eta is 1 and the split into two phases is harmless.
    excess = np.maximum(full_c - node.cap_c, _TINY)
    to_cap_s = node.tau_s * np.log(np.maximum(full_c - start_c, excess) / excess)
    free_s = np.minimum(work_s, to_cap_s)
    rest_s = (work_s - free_s) / eta
    at_cap_c = full_c + (start_c - full_c) * np.exp(-free_s / node.tau_s)
    end_c = slow_c + (at_cap_c - slow_c) * np.exp(-rest_s / node.tau_s)
    time_s = free_s + rest_s
    return Heat(
        time_s=_plain(time_s),
        energy_j=_plain(power_w * work_s + idle_w * time_s),
        slowed_s=_plain(rest_s * (eta < 1)),
        end_c=_plain(end_c),
        is_over_cap=_plain(end_c > node.cap_c + _ROUNDING_K),
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - an array, or the Python number of a NumPy scalar
    return value if np.ndim(value) else value.item()


def _require(name: str, value: Quantity, rule: Callable[[Quantity], Truth], said: str) -> None:
    holds = np.asarray(rule(value), dtype=bool)
    if not holds.all():
        worst = np.asarray(value)[~holds].flat[0]
        raise ValueError(f"{name} must be {said}, got {worst}")
