"""Energy: a workload on a device becomes seconds and joules. Simulated, never measured.

    t = max(FLOP / throughput of the phase, bytes / bandwidth)     E = (P_phase - P_idle) * t

Joules of a phase stand above the idle draw; the idle draw itself, for as long as the device is
kept awake, is the stage IDLE. Where a profile states net power, nothing is taken off; an unknown
scope is read as whole-device power. A phase of a stage is priced as a whole: it is bound by
computing or by memory, not now by one and now by the other (docs/energy.md). The radio is
priced by `fleettune.cost.radio`; heat makes a night longer (`fleettune.cost.heat`) and leaves its
joules above idle as they are.

All arithmetic is element-wise: coefficients are numbers for one device, or arrays of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleettune.cost.hardware import Coefficient, DeviceProfile
from fleettune.cost.heat import Node, throttled_s
from fleettune.cost.ledger import Cost, Ledger, Stage
from fleettune.cost.radio import Link, Radio, transfer_j, transfer_s
from fleettune.cost.workload import COMPUTING, Amount, Phase, Workload

Floats: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Mapping[str, Floats]
"""Coefficients by name: numbers, or one array element per draw."""
RADIO = "radio_"
"""Prefix of the coefficients of a device's link."""

_POWER = {
    Phase.READ: "p_storage_w",
    Phase.WRITE: "p_storage_w",
    Phase.FORWARD: "p_train_w",
    Phase.BACKWARD: "p_train_w",
    Phase.PREFILL: "p_prefill_w",
    Phase.DECODE: "p_decode_w",
}
_RADIO = {Phase.RECEIVE: ("down", "rx_w"), Phase.SEND: ("up", "tx_w")}


def coefficients(profile: DeviceProfile, radio: Radio) -> tuple[tuple[str, Coefficient], ...]:
    """Returns (name, coefficient) of a device and of its link, each once."""
    link = radio.on(profile)
    of_link = (
        (RADIO + field.name, found)
        for field in fields(Link)
        if isinstance(found := getattr(link, field.name), Coefficient)
    )
    of_device = (pair for pair in profile.coefficients() if not pair[0].startswith("wifi_"))
    return (*of_device, *of_link)


def pick_values(
    profile: DeviceProfile,
    radio: Radio,
    pick: Callable[[str, Coefficient], np.float64 | Floats],
) -> Values:
    """Returns a device's coefficients as `pick` chooses them from name and range."""
    found = {name: np.asarray(pick(name, item)) for name, item in coefficients(profile, radio)}
    for absent in ("down_j_per_mb", "up_j_per_mb"):
        found.setdefault(RADIO + absent, np.asarray(0.0))
    found["idle_included"] = np.asarray(float(profile.idle_included))
    return found


@lru_cache(maxsize=256)
def central_values(profile: DeviceProfile, radio: Radio) -> Values:
    """Returns the central value of every coefficient of a device."""
    return pick_values(profile, radio, lambda _, coefficient: np.float64(coefficient.value))


def price_amount(phase: Phase, amount: Amount, prices: Values) -> tuple[Floats, Floats]:
    """Returns the seconds of an amount, and its joules above the idle draw."""
    return price_arrays(
        phase,
        np.float64(amount.flop),
        np.float64(amount.moved_bytes),
        np.float64(amount.bursts),
        prices,
    )


def price_arrays(
    phase: Phase,
    flop: Floats | np.float64,
    moved_bytes: Floats | np.float64,
    bursts: Floats | np.float64,
    prices: Values,
) -> tuple[Floats, Floats]:
    """Returns seconds and joules above idle, element by element, in the shape of the broadcast."""
    if phase in _RADIO:
        return _transferred(*_RADIO[phase], np.asarray(moved_bytes), np.asarray(bursts), prices)
    power_w = prices[_POWER[phase]] - prices["idle_included"] * prices["p_idle_w"]
    if phase in {Phase.READ, Phase.WRITE}:
        time_s = moved_bytes * 1e-9 / prices[f"flash_{phase}_gbs"]
    else:
        time_s = np.maximum(
            flop * 1e-9 / _speed(phase, prices), moved_bytes * 1e-9 / prices["bw_decode_gbs"]
        )
    return np.asarray(time_s), np.asarray(time_s * np.maximum(power_w, 0.0))


def _transferred(
    way: str, power: str, moved_bytes: Floats, bursts: Floats, prices: Values
) -> tuple[Floats, Floats]:
    """Returns seconds and joules of a transfer on the device's link."""
    rate, rtt_s, tail_j = (prices[RADIO + name] for name in (f"{way}_mbps", "rtt_s", "tail_j"))
    time_s = transfer_s(moved_bytes, bursts, rate, rtt_s)
    marginal = prices[f"{RADIO}{way}_j_per_mb"]
    return time_s, transfer_j(moved_bytes, bursts, time_s, prices[RADIO + power], marginal, tail_j)


def _speed(phase: Phase, prices: Values) -> Floats:
    """Returns the throughput of a computing phase in GFLOP per s."""
    if phase is Phase.FORWARD:
        return prices["eff_forward_gflops"]
    if phase is Phase.BACKWARD:
        return np.asarray(prices["eff_forward_gflops"] * prices["backward_ratio"])
    return prices["eff_prefill_gops"]


def price(workload: Workload, prices: Values, heat_s: float = 0.0) -> Ledger:
    """Returns what a workload costs a device with these coefficients, by stage.

    Args:
        workload: What the device did.
        prices: Its coefficients, one number each.
        heat_s: Seconds that heat added to the work; only the idle draw counts in them.
    """
    costs: dict[Stage, Cost] = {}
    for stage, phase, amount in workload.entries:
        time_s, energy_j = price_amount(phase, amount, prices)
        cost = Cost(
            time_s=float(time_s),
            energy_j=float(energy_j),
            work_flop=amount.flop,
            down_bytes=amount.moved_bytes if phase is Phase.RECEIVE else 0.0,
            up_bytes=amount.moved_bytes if phase is Phase.SEND else 0.0,
        )
        costs[stage] = costs.get(stage, Cost()) + cost
    awake_s = sum(cost.time_s for cost in costs.values()) + heat_s
    costs[Stage.IDLE] = Cost(time_s=heat_s, energy_j=float(prices["p_idle_w"]) * awake_s)
    return Ledger(costs=tuple(costs.items()))


def work_s(workload: Workload, prices: Values) -> float:
    """Returns how long a workload takes a device that never gets hot."""
    return sum(
        float(price_amount(phase, amount, prices)[0]) for _, phase, amount in workload.entries
    )


def heat_s(workload: Workload, prices: Values) -> float:
    """Returns the seconds that heat adds to a workload done in one go, from a rested device.

    The computing phases heat the chip with their mean power; radio and storage are left out.
    """
    total_s = total_j = 0.0
    for _, phase, amount in workload.entries:
        if phase in COMPUTING:
            time_s, energy_j = price_amount(phase, amount, prices)
            total_s, total_j = total_s + float(time_s), total_j + float(energy_j)
    if total_s == 0:
        return 0.0
    node = Node(
        ambient_c=float(prices["t_ambient_c"]),
        resistance_k_per_w=float(prices["r_th_k_per_w"]),
        tau_s=float(prices["tau_s"]),
        cap_c=float(prices["t_cap_c"]),
        slowest=float(prices["eta_min"]),
    )
    idle_w = float(prices["p_idle_w"])
    slowed_s = throttled_s(node, total_s, total_j / total_s, idle_w, node.steady_c(idle_w))
    return max(0.0, slowed_s - total_s)  # rounding may end below zero
