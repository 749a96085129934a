"""Lays out a group's work as matrices, and prices a unit of each amount under every draw.

`fleettune.cost.energy.price_arrays` is asked for the price of one FLOP, one byte and one burst.
What a radio or the storage takes is linear in bytes and bursts; a computing phase takes the longer
of FLOP and memory traffic. Most phases are bound by the same side under all draws, because their
FLOP per byte lies outside the range of the balance points; only the rest has to be compared element
by element. A sample of entries is priced directly as well, so that a cost model that is no longer
of this form is an error and not a wrong number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleettune.cost.energy import Floats, Values, price_arrays
from fleettune.cost.workload import COMPUTING, Phase
from simulations.uncertainty.priced_rows import Bools, Entries, RowGroup

_PROBE_BYTES = 1e6
_SAMPLED = 8
_NOTHING = 1e-200
_ROUNDING = 1e-9
"""Relative; sums of products in another order differ by some 1e-14."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Seconds and joules of one FLOP, one byte and one burst of a phase, [draws] each."""

    seconds: tuple[Floats, ...]
    joules: tuple[Floats, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """Entries that are bound by computing under some draws and by memory under others."""

    entries: Entries
    units: Units


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Amounts [rows, columns] and the seconds and joules of their units [columns, draws]."""

    amounts: Floats
    seconds: Floats
    joules: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedPart:
    """Work that is priced together: what is linear, and what has to be compared."""

    linear: Linear
    mixed: tuple[Mixed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A group's work: of the day, the night's radio and storage, the night's computing."""

    day: PricedPart
    rest: PricedPart
    computing: PricedPart


def lay_out(group: RowGroup, at: Values, draws: int) -> Layout:
    """Returns the work of a group.

    Args:
        group: Rows of one arm on one profile.
        at: The profile's coefficients, numbers or [draws] each.
        draws: Their number.

    Raises:
        RuntimeError: If the cost model is not of the form described above.
    """
    units = {phase: units_of(phase, entries, at, draws) for phase, entries in group.entries.items()}
    day = {phase: every.where(~every.by_night) for phase, every in group.entries.items()}
    night = {phase: every.where(every.by_night) for phase, every in group.entries.items()}
    hot = {phase: entries for phase, entries in night.items() if phase in COMPUTING}
    rest = {phase: entries for phase, entries in night.items() if phase not in COMPUTING}
    rows = len(group.device)
    return Layout(
        day=_part(day, units, rows, draws),
        rest=_part(rest, units, rows, draws),
        computing=_part(hot, units, rows, draws),
    )


def _part(
    entries_of: Mapping[Phase, Entries], units_of: Mapping[Phase, Units], rows: int, draws: int
) -> PricedPart:
    columns: list[tuple[Floats, Floats, Floats]] = []
    mixed: list[Mixed] = []
    for phase, entries in entries_of.items():
        units = units_of[phase]
        amounts: tuple[Floats, ...] = (entries.flop, entries.moved_bytes, entries.bursts)
        if phase in COMPUTING:
            by_flop, by_byte = find_binding_sides(entries, units)
            unclear = ~(by_flop | by_byte)
            if unclear.any():
                mixed.append(Mixed(entries=entries.where(unclear), units=units))
            amounts = (entries.flop * by_flop, entries.moved_bytes * by_byte)
        for place, amount in enumerate(amounts):
            if amount.any():
                summed = np.zeros(rows)
                np.add.at(summed, entries.row, amount)
                columns.append((summed, units.seconds[place], units.joules[place]))
    linear = Linear(
        amounts=np.array([one[0] for one in columns]).reshape(-1, rows).T.copy(),
        seconds=np.array([one[1] for one in columns]).reshape(-1, draws),
        joules=np.array([one[2] for one in columns]).reshape(-1, draws),
    )
    return PricedPart(linear=linear, mixed=tuple(mixed))


def units_of(phase: Phase, entries: Entries, at: Values, draws: int) -> Units:
    """Returns what a unit of each amount of a phase costs, checked on some entries of it."""

    def cost(flop: float, moved_bytes: float, bursts: float) -> NDArray[np.float64]:
        found = price_arrays(
            phase, np.float64(flop), np.float64(moved_bytes), np.float64(bursts), at
        )
        return np.array([np.broadcast_to(item, draws) for item in found])

    # a burst may be free without bytes, so it is priced on top of some
    flop, byte = cost(1e9, 0, 0) / 1e9, cost(0, _PROBE_BYTES, 0) / _PROBE_BYTES
    burst = cost(0, _PROBE_BYTES, 1) - cost(0, _PROBE_BYTES, 0)
    units = Units(seconds=(flop[0], byte[0], burst[0]), joules=(flop[1], byte[1], burst[1]))
    _check_form(phase, entries, units, at)
    return units


def find_binding_sides(entries: Entries, units: Units) -> tuple[Bools, Bools]:
    """Returns which entries computing binds, and which memory, under every draw."""
    balance = units.seconds[1] / units.seconds[0]  # FLOP per byte at which both take as long
    by_flop = entries.flop >= entries.moved_bytes * balance.max()
    return by_flop, ~by_flop & (entries.flop <= entries.moved_bytes * balance.min())


def _check_form(phase: Phase, entries: Entries, units: Units, at: Values) -> None:
    """Compares a sample of entries, priced directly, with the price of their units."""
    some = slice(None, None, max(1, len(entries.row) // _SAMPLED))
    flop, moved_bytes = entries.flop[some, None], entries.moved_bytes[some, None]
    amounts = (flop, moved_bytes, entries.bursts[some, None])
    found = price_arrays(phase, *amounts, at)
    for direct, unit in zip(found, (units.seconds, units.joules), strict=True):
        parts = [amount * one for amount, one in zip(amounts, unit, strict=True)]
        summed = np.maximum(parts[0], parts[1]) if phase in COMPUTING else parts[1] + parts[2]
        if not np.allclose(direct, summed, rtol=_ROUNDING, atol=_NOTHING):
            raise RuntimeError(
                f"the cost of {phase} must be "
                f"{'the longer of FLOP and bytes' if phase in COMPUTING else 'linear'}, "
                "got another form: change simulations/uncertainty/work_matrices.py with "
                "fleettune/cost/energy.py"
            )
