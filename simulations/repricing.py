"""Repricing: all rows of a run under many draws of the coefficients, in one pass.

A block of rows under all draws is a few matrix products (`simulations.layouts`); no night is
simulated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleettune.cost import ORDER
from fleettune.energy import Floats, Values
from fleettune.workload import COMPUTING, Phase
from simulations.layouts import Layout, Mixed, Reals, Units, layout, sides, units_of
from simulations.nights import Entries, Group, Indices, Nights

ROWS_AT_ONCE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Simulated joules under every draw.

    Attributes:
        marginal_j: Above idle, [arms, profiles, draws].
        idle_j: Idle draw while awake, [arms, profiles, draws].
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


def awake_on(rest_s: Reals, computing_s: Reals, computing_j: Reals, at: Values) -> Reals:
    """Returns how long rows keep their device awake, as `fleettune.energy.awake_s` does for one.

    Args:
        rest_s: Seconds of radio and storage, [rows, draws].
        computing_s: Seconds of the phases that heat the chip.
        computing_j: Joules above idle of those phases.
        at: Coefficients, [draws] each.
    """
    del computing_j, at
    return rest_s + computing_s


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
        RuntimeError: If the cost model is not of the form that `layout` needs.
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
        here = at[group.profile]
        _add_joules(totals, group, layout(group, here, draws), here, weights)
        totals.replied[group.arm] += int(group.replied.sum())
        if np.isfinite(deadline_s):
            night = layout(group, here, draws, night_only=True, dtype=np.float32)
            _add_flips(totals, group, night, here, deadline_s)
    return totals


def _add_joules(
    totals: Totals,
    group: Group,
    work: Layout,
    at: Values,
    weights: NDArray[np.uint8] | None,
) -> None:
    place = group.arm, group.profile
    for rows in _blocks(len(group.device)):
        rest_s, joules, computing_s, computing_j = _spent(work, rows)
        idle_j = awake_on(rest_s, computing_s, computing_j, at)
        idle_j *= at["p_idle_w"]
        joules += computing_j
        totals.marginal_j[place] += joules.sum(axis=0)
        totals.idle_j[place] += idle_j.sum(axis=0)
        joules += idle_j
        device = group.device[rows]
        starts = np.flatnonzero(np.diff(device, prepend=-1))
        per_device = np.add.reduceat(joules, starts, axis=0)
        if totals.device_j.size:
            totals.device_j[group.arm, device[starts]] += per_device
        if weights is not None:
            per_device *= weights[device[starts]]
        totals.resampled_j[group.arm] += per_device.sum(axis=0)


def _add_flips(totals: Totals, group: Group, work: Layout, at: Values, deadline_s: float) -> None:
    for rows in _blocks(len(group.device)):
        rest_s, _, computing_s, computing_j = _spent(work, rows)
        is_late = awake_on(rest_s, computing_s, computing_j, at) > deadline_s
        flipped = (is_late != group.late[rows, None]) & group.replied[rows, None]
        totals.flipped[group.arm] += flipped.sum(axis=0)


def _blocks(count: int) -> list[slice]:
    return [slice(at, min(at + ROWS_AT_ONCE, count)) for at in range(0, count, ROWS_AT_ONCE)]


def _spent(work: Layout, rows: slice) -> tuple[Reals, Reals, Reals, Reals]:
    """Returns seconds and joules of radio and storage, then of computing, [rows, draws] each."""
    rest, computing = work.rest.amounts[rows], work.computing.amounts[rows]
    seconds, joules = computing @ work.computing.seconds, computing @ work.computing.joules
    for mixed in work.mixed:
        first, last = np.searchsorted(mixed.entries.row, [rows.start, rows.stop])
        if first < last:
            _compare(mixed, slice(int(first), int(last)), rows.start, seconds, joules)
    return rest @ work.rest.seconds, rest @ work.rest.joules, seconds, joules


def _compare(mixed: Mixed, part: slice, first_row: int, seconds: Reals, joules: Reals) -> None:
    """Adds entries, each at the slower of computing and memory, to their rows."""
    flop = mixed.entries.flop[part, None]
    moved_bytes = mixed.entries.moved_bytes[part, None]
    row = mixed.entries.row[part] - first_row
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    for units, into in ((mixed.units.seconds, seconds), (mixed.units.joules, joules)):
        cost = np.maximum(flop * units[0], moved_bytes * units[1])
        into[row[starts]] += cost if len(starts) == len(row) else np.add.reduceat(cost, starts)


def stages(nights: Nights, at: Sequence[Values]) -> Floats:
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


def _joules(phase: Phase, entries: Entries, units: Units) -> Reals:
    """Returns the joules of all entries together, [draws]."""
    if phase not in COMPUTING:
        moved = entries.moved_bytes.sum() * units.joules[1]
        return moved + entries.bursts.sum() * units.joules[2]
    by_flop, by_byte = sides(entries, units)
    joules = entries.flop[by_flop].sum() * units.joules[0]
    joules = joules + entries.moved_bytes[by_byte].sum() * units.joules[1]
    unclear = entries.where(~(by_flop | by_byte))
    for rows in _blocks(len(unclear.row)):
        flop, moved_bytes = unclear.flop[rows, None], unclear.moved_bytes[rows, None]
        joules += np.maximum(flop * units.joules[0], moved_bytes * units.joules[1]).sum(axis=0)
    return joules
