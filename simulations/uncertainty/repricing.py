"""Prices all rows of a run again under many draws of the coefficients, in one pass.

A block of rows under all draws is a few matrix products (`simulations.uncertainty.work_matrices`);
no night is simulated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleettune.cost.energy import Floats, Values
from fleettune.cost.ledger import ORDER
from fleettune.cost.workload import COMPUTING, Phase
from simulations.uncertainty.priced_rows import Entries, Indices, Nights, RowGroup
from simulations.uncertainty.work_matrices import (
    Layout,
    Mixed,
    PricedPart,
    Units,
    find_binding_sides,
    lay_out,
    units_of,
)

ROWS_AT_ONCE = 128
_TINY = 1e-12
_ALMOST = 1.0 - 1e-15
"""Share of the limit in a power that never exceeds it: the cap is never reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Simulated joules under every draw.

    Attributes:
        marginal_j: Above idle, [arms, profiles, draws].
        idle_j: Idle draw while awake, heat included, [arms, profiles, draws].
        device_j: Both of every device, [arms, devices, draws]; only where asked for, else empty.
        resampled_j: Both, every device counted as often as its weight says, [arms, draws].
        flipped: Rows whose night crosses the deadline to the other side, [arms, draws].
        replied: Rows of devices that finished their night, [arms].
    """

    marginal_j: Floats
    idle_j: Floats
    device_j: Floats
    resampled_j: Floats
    flipped: Floats
    replied: Indices

    @property
    def total_j(self) -> Floats:
        """Joules of whole devices, [arms, draws]."""
        return (self.marginal_j + self.idle_j).sum(axis=1)


def heat_seconds(computing_s: Floats, computing_j: Floats, at: Values) -> Floats:
    """Returns the seconds that heat adds to rows, as `fleettune.cost.energy.heat_s` does for one.

    A rested device reaches its cap after tau ln(P / (P - limit)), where the limit is the power
    above idle that holds it there; then it works at limit / P of its speed, or at its slowest. This
    is `fleettune.cost.heat.throttled_s` for arrays and rested devices.

    Args:
        computing_s: Seconds of the night's computing phases, [rows, draws].
        computing_j: Their joules above idle, [rows, draws].
        at: Coefficients, [draws] or one number each.
    """
    limit_w = _limit_w(at)
    power_w = computing_j / np.maximum(computing_s, _TINY)
    share = np.clip(limit_w / np.maximum(power_w, _TINY), 0.0, 1.0)
    to_cap_s = np.log1p(-np.minimum(share, _ALMOST))
    to_cap_s *= -at["tau_s"]
    slowed_s = np.maximum(computing_s - to_cap_s, 0.0)
    slowed_s *= 1.0 / np.maximum(share, at["eta_min"]) - 1.0
    return slowed_s


def _limit_w(at: Values) -> Floats:
    """Returns the power above idle that holds a device at its cap."""
    return (at["t_cap_c"] - at["t_ambient_c"]) / at["r_th_k_per_w"] - at["p_idle_w"]


def _heating(work: Layout, at: Values) -> Indices:
    """Returns the draws under which some phase of the night draws more than the limit."""
    limit_w = _limit_w(at)
    linear = work.computing.linear
    compared = (mixed.units for mixed in work.computing.mixed)
    units = [(linear.seconds, linear.joules)]
    units += [(one.seconds[1][None], one.joules[1][None]) for one in compared]
    hot = [(joules > seconds * limit_w).any(axis=0) for seconds, joules in units]
    return np.flatnonzero(np.any(hot, axis=0)).astype(np.int64)


def reprice(
    nights: Nights,
    at: Sequence[Values],
    *,
    weights: NDArray[np.uint8] | None = None,
    deadline_s: float = np.inf,
    by_device: bool = False,
) -> Totals:
    """Returns what the rows cost under every draw.

    Args:
        nights: The rows.
        at: Coefficients of each of `nights.profiles`, numbers or [draws] each.
        weights: How often a device is counted, [devices, draws]; None counts each once.
        deadline_s: Seconds of the night after which a device is late.
        by_device: True to keep the sums of every device.

    Raises:
        RuntimeError: If the cost model is not of the form that `lay_out` needs.
    """
    draws = max((item.size for one in at for item in one.values()), default=1)
    arms, profiles, devices = len(nights.arms), len(nights.profiles), len(nights.devices)
    totals = Totals(
        marginal_j=np.zeros((arms, profiles, draws)),
        idle_j=np.zeros((arms, profiles, draws)),
        device_j=np.zeros((arms, devices if by_device else 0, draws)),
        resampled_j=np.zeros((arms, draws)),
        flipped=np.zeros((arms, draws)),
        replied=np.zeros(arms, dtype=np.int64),
    )
    for group in nights.groups:
        totals.replied[group.arm] += int(group.replied.sum())
        _add(totals, group, at[group.profile], weights, deadline_s)
    return totals


def _add(
    totals: Totals,
    group: RowGroup,
    at: Values,
    weights: NDArray[np.uint8] | None,
    deadline_s: float,
) -> None:
    work = lay_out(group, at, totals.resampled_j.shape[-1])
    place, hot = (group.arm, group.profile), _heating(work, at)
    for rows in _blocks(len(group.device)):
        marginal_j, day_s, night_s = _spent(work, rows, at, hot)
        if np.isfinite(deadline_s):
            flipped = ((night_s > deadline_s) != group.late[rows, None]) & group.replied[rows, None]
            totals.flipped[group.arm] += flipped.sum(axis=0)
        idle_j = (day_s + night_s) * at["p_idle_w"]
        totals.marginal_j[place] += marginal_j.sum(axis=0)
        totals.idle_j[place] += idle_j.sum(axis=0)
        idle_j += marginal_j
        device = group.device[rows]
        starts = np.flatnonzero(np.diff(device, prepend=-1))
        per_device = np.add.reduceat(idle_j, starts, axis=0)
        if totals.device_j.size:
            totals.device_j[group.arm, device[starts]] += per_device
        if weights is not None:
            per_device *= weights[device[starts]]
        totals.resampled_j[group.arm] += per_device.sum(axis=0)


def _blocks(count: int) -> list[slice]:
    return [slice(at, min(at + ROWS_AT_ONCE, count)) for at in range(0, count, ROWS_AT_ONCE)]


def _spent(work: Layout, rows: slice, at: Values, hot: Indices) -> tuple[Floats, Floats, Floats]:
    """Returns joules above idle, seconds by day and by night with its heat, [rows, draws] each."""
    day_s, day_j = _priced(work.day, rows)
    rest_s, rest_j = _priced(work.rest, rows)
    computing_s, computing_j = _priced(work.computing, rows)
    if len(hot):
        here = {name: item[hot] if item.ndim else item for name, item in at.items()}
        rest_s[:, hot] += heat_seconds(computing_s[:, hot], computing_j[:, hot], here)
    rest_s += computing_s
    day_j += rest_j
    day_j += computing_j
    return day_j, day_s, rest_s


def _priced(part: PricedPart, rows: slice) -> tuple[Floats, Floats]:
    """Returns seconds and joules above idle, [rows, draws] each."""
    amounts = part.linear.amounts[rows]
    seconds, joules = amounts @ part.linear.seconds, amounts @ part.linear.joules
    for mixed in part.mixed:
        first, last = np.searchsorted(mixed.entries.row, [rows.start, rows.stop])
        if first < last:
            _compare(mixed, slice(int(first), int(last)), rows.start, seconds, joules)
    return seconds, joules


def _compare(mixed: Mixed, part: slice, first_row: int, seconds: Floats, joules: Floats) -> None:
    """Adds entries, each at the slower of computing and memory, to their rows."""
    flop = mixed.entries.flop[part, None]
    moved_bytes = mixed.entries.moved_bytes[part, None]
    row = mixed.entries.row[part] - first_row
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    for units, into in ((mixed.units.seconds, seconds), (mixed.units.joules, joules)):
        cost = np.maximum(flop * units[0], moved_bytes * units[1])
        into[row[starts]] += cost if len(starts) == len(row) else np.add.reduceat(cost, starts)


def reprice_stages(nights: Nights, at: Sequence[Values]) -> Floats:
    """Returns joules by stage under every draw, [arms, stages in their order, draws].

    Idle stays empty: it belongs to whole rows (`Totals.idle_j`).
    """
    draws = max((item.size for one in at for item in one.values()), default=1)
    found = np.zeros((len(nights.arms), len(ORDER), draws))
    for group in nights.groups:
        for phase, every in group.entries.items():
            units = units_of(phase, every, at[group.profile], draws)
            for stage in np.unique(every.stage):
                entries = every.where(every.stage == stage)
                found[group.arm, stage] += _joules(phase, entries, units)
    return found


def _joules(phase: Phase, entries: Entries, units: Units) -> Floats:
    """Returns the joules of all entries together, [draws]."""
    if phase not in COMPUTING:
        moved = entries.moved_bytes.sum() * units.joules[1]
        return moved + entries.bursts.sum() * units.joules[2]
    by_flop, by_byte = find_binding_sides(entries, units)
    joules = entries.flop[by_flop].sum() * units.joules[0]
    joules = joules + entries.moved_bytes[by_byte].sum() * units.joules[1]
    unclear = entries.where(~(by_flop | by_byte))
    for rows in _blocks(len(unclear.row)):
        flop, moved_bytes = unclear.flop[rows, None], unclear.moved_bytes[rows, None]
        joules += np.maximum(flop * units.joules[0], moved_bytes * units.joules[1]).sum(axis=0)
    return joules
