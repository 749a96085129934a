"""Energy: a workload on a device becomes seconds and joules. Simulated, never measured.

    t = max(FLOP / throughput of the phase, bytes / bandwidth)     E = (P_phase - P_idle) * t
    radio: t = 8 * bytes / rate + RTT per burst     E = P_on * t + J/MB * bytes + tail per burst

Joules of a phase stand above the idle draw; the idle draw itself, for as long as the device is
kept awake, is the stage IDLE. Where a profile states net power, nothing is taken off; an unknown
scope is read as whole-device power. A phase of a stage is priced as a whole: it is bound by
computing or by memory, not now by one and now by the other (DEVICE_COST section 6.3).

All arithmetic is element-wise: coefficients are numbers for one device, or arrays of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleettune.cost import Cost, Ledger, Stage
from fleettune.hardware import Coefficient, DeviceProfile
from fleettune.workload import Amount, Phase, Workload

Floats: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Mapping[str, Floats]
"""Coefficients by name: numbers, or one array element per draw."""

_POWER = {
    Phase.READ: "p_storage_w",
    Phase.WRITE: "p_storage_w",
    Phase.FORWARD: "p_train_w",
    Phase.BACKWARD: "p_train_w",
    Phase.PREFILL: "p_prefill_w",
    Phase.DECODE: "p_decode_w",
}
_RADIO = {Phase.RECEIVE: ("down", "rx_w"), Phase.SEND: ("up", "tx_w")}


def central(profile: DeviceProfile) -> Values:
    """Returns the central value of every coefficient of a device."""
    return values(profile, lambda _, coefficient: np.float64(coefficient.value))


def values(
    profile: DeviceProfile, pick: Callable[[str, Coefficient], np.float64 | Floats]
) -> Values:
    """Returns a device's coefficients as `pick` chooses them from name and range."""
    found = {name: np.asarray(pick(name, item)) for name, item in profile.coefficients()}
    found["idle_included"] = np.asarray(float(profile.power_scope != "net"))
    return found


def spent(phase: Phase, amount: Amount, at: Values) -> tuple[Floats, Floats]:
    """Returns the seconds of an amount, and its joules above the idle draw."""
    return spent_on(
        phase,
        np.float64(amount.flop),
        np.float64(amount.moved_bytes),
        np.float64(amount.bursts),
        at,
    )


def spent_on(
    phase: Phase,
    flop: Floats | np.float64,
    moved_bytes: Floats | np.float64,
    bursts: Floats | np.float64,
    at: Values,
) -> tuple[Floats, Floats]:
    """Returns seconds and joules above idle, element by element, in the shape of the broadcast."""
    if phase in _RADIO:
        way, power = _RADIO[phase]
        time_s = moved_bytes * 8e-6 / at[f"wifi_{way}_mbps"]
        return np.asarray(time_s), np.asarray(time_s * at[f"wifi_{power}"])
    power_w = at[_POWER[phase]] - at["idle_included"] * at["p_idle_w"]
    if phase in {Phase.READ, Phase.WRITE}:
        time_s = moved_bytes * 1e-9 / at[f"flash_{phase}_gbs"]
    else:
        time_s = np.maximum(
            flop * 1e-9 / _speed(phase, at), moved_bytes * 1e-9 / at["bw_decode_gbs"]
        )
    return np.asarray(time_s), np.asarray(time_s * np.maximum(power_w, 0.0))


def _speed(phase: Phase, at: Values) -> Floats:
    """Returns the throughput of a computing phase in GFLOP per s."""
    if phase is Phase.FORWARD:
        return at["eff_forward_gflops"]
    if phase is Phase.BACKWARD:
        return np.asarray(at["eff_forward_gflops"] * at["backward_ratio"])
    return at["eff_prefill_gops"]


def price(workload: Workload, at: Values) -> Ledger:
    """Returns what a workload costs a device with these coefficients, by stage."""
    costs: dict[Stage, Cost] = {}
    for stage, phase, amount in workload.entries:
        time_s, energy_j = spent(phase, amount, at)
        cost = Cost(
            time_s=float(time_s),
            energy_j=float(energy_j),
            work_flop=amount.flop,
            down_bytes=amount.moved_bytes if phase is Phase.RECEIVE else 0.0,
            up_bytes=amount.moved_bytes if phase is Phase.SEND else 0.0,
        )
        costs[stage] = costs.get(stage, Cost()) + cost
    awake_s = sum(cost.time_s for cost in costs.values())
    idle_j = float(at["p_idle_w"]) * awake_s
    costs[Stage.IDLE] = Cost(energy_j=idle_j)
    return Ledger(costs=tuple(costs.items()))


def awake_s(workload: Workload, at: Values) -> float:
    """Returns how long a workload keeps a device awake."""
    return sum(float(spent(phase, amount, at)[0]) for _, phase, amount in workload.entries)
