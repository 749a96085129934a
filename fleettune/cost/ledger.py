"""Costs: seconds, joules and bytes of what a device did, and the ledger that keeps them by stage.

Costs are a commutative monoid, so the cost of a night, a fleet or a run is a sum. Joules stand at
the central value of every coefficient; what the coefficients' ranges make of them is worked out
once, over all rows of a run (`simulations.uncertainty.estimate`). Sums run in the order of the
stages, never in the order in which costs came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum


class Stage(StrEnum):
    """What a cost was for, in the order in which a night goes through them."""

    IDLE = "idle"
    DOWNLOAD = "download"
    SELECT = "select"
    SYNTHESISE = "synthesise"
    CHECK = "check"
    PROBE = "probe"
    TUNE = "tune"
    SERVE = "serve"
    UPLOAD = "upload"
    WASTED = "wasted"
    OBSERVE = "observe"


ORDER = {stage: position for position, stage in enumerate(Stage)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an operation took on a device; a commutative monoid with `Cost()` as zero.

    Attributes:
        time_s: Wall-clock time on the device.
        energy_j: Joules above the idle draw (simulated, never measured); the idle draw itself while
            the device is kept awake stands in the stage IDLE, so the total is the whole device's.
        work_flop: Floating-point operations.
        down_bytes: Bytes received over the network.
        up_bytes: Bytes sent over the network.
    """

    time_s: float = 0.0
    energy_j: float = 0.0
    work_flop: float = 0.0
    down_bytes: float = 0.0
    up_bytes: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{field.name} must be finite and >= 0, got {value}")

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            time_s=self.time_s + other.time_s,
            energy_j=self.energy_j + other.energy_j,
            work_flop=self.work_flop + other.work_flop,
            down_bytes=self.down_bytes + other.down_bytes,
            up_bytes=self.up_bytes + other.up_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Costs by stage; `Ledger()` is what nothing costs.

    Attributes:
        costs: One (stage, cost) per stage that cost anything, in stage order. Given in any order,
            they are sorted, and stages that cost nothing are dropped, so equal ledgers compare
            equal.
    """

    costs: tuple[tuple[Stage, Cost], ...] = ()

    def __post_init__(self) -> None:
        stages = [stage for stage, _ in self.costs]
        if len(set(stages)) < len(stages):
            raise ValueError(f"costs must name each stage once, got {', '.join(stages)}")
        kept = (entry for entry in self.costs if entry[1] != Cost())
        ordered = tuple(sorted(kept, key=lambda entry: ORDER[entry[0]]))
        object.__setattr__(self, "costs", ordered)

    def of(self, stage: Stage) -> Cost:
        """Returns what a stage cost; nothing if it cost nothing."""
        return dict(self.costs).get(stage, Cost())

    def total(self) -> Cost:
        """Returns what the device paid: the sum of all stages but OBSERVE.

        OBSERVE is the ledger of the experiment's observer (evaluations that no device would run);
        it is kept beside the others, and the device never pays it.
        """
        return sum((cost for stage, cost in self.costs if stage is not Stage.OBSERVE), Cost())
