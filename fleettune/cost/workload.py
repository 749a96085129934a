"""Workload: what a night asked of a device, before any hardware prices it.

Amounts are kept by stage and phase, so that joules and seconds are a function of rows and
coefficients: one model run can be priced under any draw of the coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum

from fleettune.cost.ledger import ORDER, Stage
from fleettune.cost.work import Work


class Phase(StrEnum):
    """How a device spends its time: each has a throughput and a power of its own."""

    RECEIVE = "receive"
    SEND = "send"
    READ = "read"
    WRITE = "write"
    FORWARD = "forward"
    BACKWARD = "backward"
    PREFILL = "prefill"
    DECODE = "decode"


COMPUTING = (Phase.FORWARD, Phase.BACKWARD, Phase.PREFILL, Phase.DECODE)
"""Phases that heat the chip; radio and storage are left out of the thermal node."""
_PHASES = {phase: place for place, phase in enumerate(Phase)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much of a phase; a commutative monoid with `Amount()` as zero.

    Attributes:
        flop: Floating-point operations.
        moved_bytes: Bytes in memory, in storage or over the radio, by phase.
        bursts: Transfers over the radio, each with its round trip and its tail.
    """

    flop: float = 0.0
    moved_bytes: float = 0.0
    bursts: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{field.name} must be finite and >= 0, got {value}")

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            flop=self.flop + other.flop,
            moved_bytes=self.moved_bytes + other.moved_bytes,
            bursts=self.bursts + other.bursts,
        )

    def __mul__(self, share: float) -> Amount:
        return Amount(
            flop=self.flop * share,
            moved_bytes=self.moved_bytes * share,
            bursts=self.bursts * share,
        )


Entry = tuple[Stage, Phase, Amount]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Amounts by stage and phase; a commutative monoid with `Workload()` as zero.

    Attributes:
        entries: One per stage and phase with an amount, in their order; given in any order they
            are sorted, and empty ones are dropped, so equal workloads compare equal.
    """

    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        keys = [(stage, phase) for stage, phase, _ in self.entries]
        if len(set(keys)) < len(keys):
            raise ValueError(f"a workload must name each stage and phase once, got {keys}")
        kept = (entry for entry in self.entries if entry[2] != Amount())
        ordered = sorted(kept, key=lambda entry: (ORDER[entry[0]], _PHASES[entry[1]]))
        object.__setattr__(self, "entries", tuple(ordered))

    def of(self, stage: Stage, phase: Phase) -> Amount:
        """Returns the amount of a phase in a stage; nothing if there was none."""
        found = (e[2] for e in self.entries if e[0] is stage and e[1] is phase)
        return next(found, Amount())

    def plus(self, stage: Stage, phase: Phase, amount: Amount) -> Workload:
        """Returns the workload with an amount added."""
        rest = tuple(e for e in self.entries if not (e[0] is stage and e[1] is phase))
        return Workload(entries=(*rest, (stage, phase, self.of(stage, phase) + amount)))

    def plus_all(self, entries: Iterable[Entry]) -> Workload:
        """Returns the workload with amounts added, one after the other."""
        total = self
        for entry in entries:
            total = total.plus(*entry)
        return total

    def __add__(self, other: Workload) -> Workload:
        return self.plus_all(other.entries)


def computing(work: Work) -> Amount:
    """Returns work as the amount of a computing phase."""
    return Amount(flop=work.flop, moved_bytes=work.traffic_bytes)


def moving(size_bytes: float) -> Amount:
    """Returns bytes read from or written to storage as an amount."""
    return Amount(moved_bytes=size_bytes)


def transferring(size_bytes: float) -> Amount:
    """Returns one transfer over the radio as an amount."""
    return Amount(moved_bytes=size_bytes, bursts=1.0)
