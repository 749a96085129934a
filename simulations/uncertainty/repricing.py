"""Prices all rows of a run again under many draws of the coefficients; no night is simulated again.

Every amount is priced by `fleettune.cost.energy.price_arrays`, as on a device, for a block of rows
and all draws at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fleettune.cost.energy import Floats, Values, price_arrays
from fleettune.cost.ledger import ORDER
from fleettune.cost.workload import COMPUTING, Phase
from simulations.uncertainty.priced_rows import Entries, Indices, Nights, RowGroup

ROWS_AT_ONCE = 64
"""So few that their prices under a thousand draws fit into the processor's cache."""
_TINY = 1e-12
_ALMOST = 1.0 - 1e-15
"""Share of the limit in a power that never exceeds it: the cap is never reached."""
Parts = Iterable[tuple[Phase, Entries]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Simulated joules under every draw.

    Attributes:
        marginal_j: Above idle, [arms, profiles, draws].
        idle_j: Idle draw while awake, heat included, [arms, profiles, draws].
        stage_j: Above idle by stage, in the order of the stages, [arms, stages, draws].
        resampled_j: Marginal and idle, every device counted by its weight, [arms, draws].
        flipped: Rows whose night crosses the deadline to the other side, [arms, draws].
        replied: Rows of devices that finished their night, [arms].
    """

    marginal_j: Floats
    idle_j: Floats
    stage_j: Floats
    resampled_j: Floats
    flipped: Floats
    replied: Indices

    @property
    def total_j(self) -> Floats:
        """Joules of whole devices, [arms, draws]."""
        return (self.marginal_j + self.idle_j).sum(axis=1)


def reprice(
    nights: Nights,
    at: Sequence[Values],
    *,
    weights: NDArray[np.uint8] | None = None,
    deadline_s: float = np.inf,
) -> Totals:
    """Returns what the rows cost under every draw.

    Args:
        nights: The rows.
        at: Coefficients of each of `nights.profiles`, numbers or [draws] each.
        weights: How often a device is counted, [devices, draws]; None counts each once.
        deadline_s: Seconds of the night after which a device is late.
    """
    draws = max((item.size for one in at for item in one.values()), default=1)
    arms, profiles = len(nights.arms), len(nights.profiles)
    totals = Totals(
        marginal_j=np.zeros((arms, profiles, draws)),
        idle_j=np.zeros((arms, profiles, draws)),
        stage_j=np.zeros((arms, len(ORDER), draws)),
        resampled_j=np.zeros((arms, draws)),
        flipped=np.zeros((arms, draws)),
        replied=np.zeros(arms, dtype=np.int64),
    )
    for group in nights.groups:
        totals.replied[group.arm] += int(group.replied.sum())
        for start in range(0, len(group.device), ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, len(group.device)))
            _add_rows(totals, group, rows, at[group.profile], weights, deadline_s)
    return totals


def _add_rows(
    totals: Totals,
    group: RowGroup,
    rows: slice,
    at: Values,
    weights: NDArray[np.uint8] | None,
    deadline_s: float,
) -> None:
    marginal_j, day_s, night_s = _price_rows(group, rows, at, totals.stage_j[group.arm])
    if np.isfinite(deadline_s):
        flipped = ((night_s > deadline_s) != group.late[rows, None]) & group.replied[rows, None]
        totals.flipped[group.arm] += flipped.sum(axis=0)
    idle_j = (day_s + night_s) * at["p_idle_w"]
    totals.marginal_j[group.arm, group.profile] += marginal_j.sum(axis=0)
    totals.idle_j[group.arm, group.profile] += idle_j.sum(axis=0)
    idle_j += marginal_j
    device = group.device[rows]
    starts = np.flatnonzero(np.diff(device, prepend=-1))
    per_device = np.add.reduceat(idle_j, starts, axis=0)
    if weights is not None:
        per_device *= weights[device[starts]]
    totals.resampled_j[group.arm] += per_device.sum(axis=0)


def _price_rows(
    group: RowGroup, rows: slice, at: Values, stage_j: Floats
) -> tuple[Floats, Floats, Floats]:
    """Returns joules above idle, and seconds by day and by night with its heat, [rows, draws] each.

    Joules are added to `stage_j` as well, [stages, draws].
    """
    day: list[tuple[Phase, Entries]] = []
    rest: list[tuple[Phase, Entries]] = []
    computing: list[tuple[Phase, Entries]] = []
    for phase, every in group.entries.items():
        first, last = np.searchsorted(every.row, [rows.start, rows.stop])
        some = every.where(slice(int(first), int(last)))
        some = replace(some, row=some.row - rows.start)
        day.append((phase, some.where(~some.by_night)))
        night = computing if phase in COMPUTING else rest
        night.append((phase, some.where(some.by_night)))
    shape = (rows.stop - rows.start, stage_j.shape[-1])
    day_s, day_j = _price(day, at, shape, stage_j)
    rest_s, rest_j = _price(rest, at, shape, stage_j)
    computing_s, computing_j = _price(computing, at, shape, stage_j)
    rest_s += computing_s + heat_seconds(computing_s, computing_j, at)
    return day_j + rest_j + computing_j, day_s, rest_s


def _price(
    parts: Parts, at: Values, shape: tuple[int, int], stage_j: Floats
) -> tuple[Floats, Floats]:
    """Returns seconds and joules above idle, [rows, draws] each."""
    seconds, joules = np.zeros(shape), np.zeros(shape)
    for phase, entries in parts:
        if not len(entries.row):
            continue
        amounts = (entries.flop[:, None], entries.moved_bytes[:, None], entries.bursts[:, None])
        starts = np.flatnonzero(np.diff(entries.row, prepend=-1))
        time_s, energy_j = price_arrays(phase, *amounts, at)
        for cost, into in ((time_s, seconds), (energy_j, joules)):
            # most rows have one amount of a phase, and its sum is a slow copy
            alone = len(starts) == len(cost)
            into[entries.row[starts]] += cost if alone else np.add.reduceat(cost, starts)
        for stage in np.unique(entries.stage):
            stage_j[stage] += (entries.stage == stage).astype(np.float64) @ energy_j
    return seconds, joules


def heat_seconds(computing_s: Floats, computing_j: Floats, at: Values) -> Floats:
    """Returns the seconds that heat adds to rows, as `fleettune.cost.energy.heat_s` does for one.

    A rested device reaches its cap after tau ln(P / (P - limit)), where the limit is the power
    above idle that holds it there; then it works at limit / P of its speed, or at its slowest. This
    is `fleettune.cost.heat.throttle` without the temperatures, which nobody needs here.

    Args:
        computing_s: Seconds of the night's computing phases, [rows, draws].
        computing_j: Their joules above idle, [rows, draws].
        at: Coefficients, [draws] or one number each.
    """
    limit_w = (at["t_cap_c"] - at["t_ambient_c"]) / at["r_th_k_per_w"] - at["p_idle_w"]
    power_w = computing_j / np.maximum(computing_s, _TINY)
    if not (power_w > limit_w).any():
        return np.zeros(())
    share = np.clip(limit_w / np.maximum(power_w, _TINY), 0.0, 1.0)
    to_cap_s = np.log1p(-np.minimum(share, _ALMOST))
    to_cap_s *= -at["tau_s"]
    slowed_s = np.maximum(computing_s - to_cap_s, 0.0)
    slowed_s *= 1.0 / np.maximum(share, at["eta_min"]) - 1.0
    return slowed_s
