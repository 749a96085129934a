"""Host energy: what the simulating machine drew, where it has a meter. Never a device's joules.

Linux counts the energy of processor packages and their memory (RAPL) in files below
`/sys/class/powercap`; reading them mostly takes the rights of root. Counted is the whole machine,
other processes included, accelerators, fans and power supply excluded. Without a meter nothing is
estimated: the energy is not measured, and the reason is told.

Source: Linux kernel, Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PARTS = ("package", "dram")
"""Zones that add up. Cores and graphics lie inside a package, the platform zone around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One counter: its folder, and the microjoules after which it begins again at 0."""

    folder: Path
    range_uj: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """The counters of a machine, or why there are none."""

    zones: tuple[Zone, ...] = ()
    obstacle: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Joules since the start, and the counters as last read.

    Attributes:
        energy_j: None if the machine has no meter.
        counters_uj: One per zone.
    """

    energy_j: float | None
    counters_uj: tuple[int, ...] = ()


def find_meter(folder: Path = POWERCAP) -> Meter:
    """Returns the meter of this machine; one without zones says why."""
    zones: list[Zone] = []
    for name in sorted(folder.glob("*/name")):
        if not name.read_text().strip().startswith(PARTS):
            continue
        try:
            (name.parent / "energy_uj").read_text()
            span = int((name.parent / "max_energy_range_uj").read_text())
        except OSError as error:
            return Meter(obstacle=f"{error.filename}: {error.strerror}")
        zones.append(Zone(folder=name.parent, range_uj=span))
    if not zones:
        return Meter(obstacle=f"no counter of a processor package in {folder}")
    return Meter(zones=tuple(zones))


def start(meter: Meter) -> Reading:
    """Returns the first reading: no joules yet."""
    if not meter.zones:
        return Reading(energy_j=None)
    return Reading(energy_j=0.0, counters_uj=_counters(meter))


def advance(meter: Meter, before: Reading) -> Reading:
    """Returns the joules up to now.

    A counter begins again after some minutes to hours of full load, which a pair of readings
    shows once: call this every round of a run, not at its end only.
    """
    if before.energy_j is None:
        return before
    now = _counters(meter)
    steps = zip(meter.zones, before.counters_uj, now, strict=True)
    moved = math.fsum((new - old) % zone.range_uj for zone, old, new in steps)
    return Reading(energy_j=before.energy_j + moved / 1e6, counters_uj=now)


@dataclass(slots=True)
class Watch:
    """A meter that is read again and again while a run goes on."""

    meter: Meter
    reading: Reading

    def look(self) -> None:
        """Reads the counters; often enough that none begins again twice in between."""
        self.reading = advance(self.meter, self.reading)


def watch() -> Watch:
    """Returns a watch on this machine's meter, started now."""
    meter = find_meter()
    return Watch(meter, start(meter))


def told(meter: Meter, reading: Reading) -> str:
    """Returns a reading as words for a report."""
    if reading.energy_j is None:
        return f"not measured ({meter.obstacle})"
    return f"{reading.energy_j:.0f} J measured (processor packages and memory of this machine)"


def _counters(meter: Meter) -> tuple[int, ...]:
    return tuple(int((zone.folder / "energy_uj").read_text()) for zone in meter.zones)
