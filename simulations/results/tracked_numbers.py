"""The numbers that a tracker is given: of every night so far, and of the summary at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulations.experiment.headlines import HEADLINES

_COUNTED = ("retune", "reuse")


@dataclass(slots=True)
class _ArmSoFar:
    energy_j: list[float] = field(default_factory=list[float])
    decisions: list[str] = field(default_factory=list[str])
    tonight: list[float] = field(default_factory=list[float])


@dataclass(slots=True)
class NightNumbers:
    """What every arm came to so far, from rows as they come.

    Joules and counts are of all nights so far, quality is the mean over the devices of one night.
    Sums are exactly rounded, so the last night's joules are those of the summary.

    Attributes:
        arms: Names of the arms.
        metric: The headline metric.
    """

    arms: Sequence[str]
    metric: str
    _found: dict[str, _ArmSoFar] = field(init=False)

    def __post_init__(self) -> None:
        self._found = {arm: _ArmSoFar() for arm in self.arms}

    def note_row(self, row: Mapping[str, Any]) -> None:
        """Takes in what one device did in one night of one arm."""
        head, arm = HEADLINES[self.metric], self._found[row["arm"]]
        arm.energy_j.append(row["energy_j"])
        arm.decisions.append(row["decision"])
        quality = row[head.column]
        if quality is not None and not math.isnan(quality):
            arm.tonight.append(head.sign * quality)

    def end_night(self) -> dict[str, float]:
        """Returns the numbers by name, and forgets what was of this night alone."""
        values: dict[str, float] = {}
        for name, arm in self._found.items():
            values[f"night/{name}/energy_j"] = math.fsum(arm.energy_j)
            for word in _COUNTED:
                values[f"night/{name}/{word}"] = arm.decisions.count(word)
            if arm.tonight:
                values[f"night/{name}/quality"] = math.fsum(arm.tonight) / len(arm.tonight)
            arm.tonight.clear()
        return values


def list_final_numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Returns what ``summary.json`` says of every arm, by name; what is unknown is left out."""
    values: dict[str, float | None] = {}
    for name, arm in summary["arms"].items():
        versus = arm["vs_reference"]
        values |= {
            f"summary/{name}/energy_j": arm["energy_j"]["total"],
            f"summary/{name}/quality": arm["quality"]["mean"],
            f"summary/{name}/energy_saving": versus["energy_saving"]["mean"],
            f"summary/{name}/quality_difference": versus["quality_difference"]["mean"],
        }
        values |= {f"summary/{name}/{word}": arm["counts"][word] for word in _COUNTED}
    return {name: value for name, value in values.items() if value is not None}
