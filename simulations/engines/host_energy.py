"""Joules that the simulating machine drew, where it has a meter. They are never a device's joules.

Linux counts the energy of processor packages and their memory (RAPL) in files below
`/sys/class/powercap`. Reading them mostly takes the rights of root. They count the whole machine,
other processes included; accelerators, fans and power supply are left out. Without a meter nothing
is estimated: the energy is not measured, and the reason is told.

Source: Linux kernel, Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PARTS = ("package", "dram")
"""Zones that add up. Cores and graphics lie inside a package, the platform zone around it."""


@dataclass(slots=True, kw_only=True)
class HostMeter:
    """The counters of this machine, and the joules since they were first read.

    Attributes:
        zones: Folder of every counter, and the microjoules after which it begins again at 0.
        counters_uj: The counters as last read.
        energy_j: Joules so far; None where the machine has no counter.
        obstacle: Why it has none.
    """

    zones: tuple[tuple[Path, int], ...] = ()
    counters_uj: tuple[int, ...] = ()
    energy_j: float | None = None
    obstacle: str = ""

    def read(self) -> None:
        """Adds the joules since the last call.

        A counter begins again after some minutes to hours of full load, and two readings show it
        once only: call this every round of a run, not at its end alone.
        """
        if self.energy_j is None:
            return
        now = tuple(_counter(folder) for folder, _ in self.zones)
        steps = zip(self.zones, self.counters_uj, now, strict=True)
        moved_uj = math.fsum((new - old) % span for (_, span), old, new in steps)
        self.energy_j, self.counters_uj = self.energy_j + moved_uj / 1e6, now

    def describe(self) -> str:
        """Returns the joules in words for a report."""
        if self.energy_j is None:
            return f"not measured ({self.obstacle})"
        return f"{self.energy_j:.0f} J measured (processor packages and memory of this machine)"


def open_meter(folder: Path = POWERCAP) -> HostMeter:
    """Returns the meter of this machine, read once; one without zones says why."""
    zones: list[tuple[Path, int]] = []
    counters: list[int] = []
    for name in sorted(folder.glob("*/name")):
        if not name.read_text().strip().startswith(PARTS):
            continue
        try:
            counters.append(_counter(name.parent))
            zones.append((name.parent, int((name.parent / "max_energy_range_uj").read_text())))
        except OSError as error:
            return HostMeter(obstacle=f"{error.filename}: {error.strerror}")
    if not zones:
        return HostMeter(obstacle=f"no counter of a processor package in {folder}")
    return HostMeter(zones=tuple(zones), counters_uj=tuple(counters), energy_j=0.0)


def _counter(folder: Path) -> int:
    return int((folder / "energy_uj").read_text())
