"""Reads a run's rows and the amounts behind them into arrays, for one pass.

Rows of one arm on one profile stand together, devices in order, because they are priced with the
same coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fleettune.cost.energy import Floats
from fleettune.cost.ledger import ORDER, Stage
from fleettune.cost.workload import Phase

Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]

BY_DAY = (Stage.SELECT, Stage.SERVE)
"""Stages that `clients.device` bills to the day; all others fill the night's window."""
REPLIED = ("present", "late")
_KEY = ["arm", "device", "round"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """All amounts of one phase in a group, by row, [entries] each.

    Attributes:
        row: Row within the group, ascending.
        flop: Floating-point operations.
        moved_bytes: Bytes.
        bursts: Transfers.
        stage: What it was for, a position in `fleettune.cost.ledger.ORDER`.
    """

    row: Indices
    flop: Floats
    moved_bytes: Floats
    bursts: Floats
    stage: Indices

    @property
    def by_night(self) -> Bools:
        """Whether it fills the night's window."""
        return ~np.isin(self.stage, [ORDER[stage] for stage in BY_DAY])

    def where(self, kept: Bools) -> Entries:
        """Returns some of the entries."""
        return Entries(
            row=self.row[kept],
            flop=self.flop[kept],
            moved_bytes=self.moved_bytes[kept],
            bursts=self.bursts[kept],
            stage=self.stage[kept],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """The rows of one arm on one profile, by device and round.

    Attributes:
        arm: Position of the arm in `Nights.arms`.
        profile: Position of the profile in `Nights.profiles`.
        device: Position of each row's device in `Nights.devices`, ascending.
        replied: Whether the device finished its night, in time or late.
        late: Whether it finished after the deadline.
        entries: Amounts by phase.
    """

    arm: int
    profile: int
    device: Indices
    replied: Bools
    late: Bools
    entries: Mapping[Phase, Entries]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nights:
    """All rows of a run; arms, profiles (by name) and devices ascend."""

    arms: tuple[str, ...]
    profiles: tuple[str, ...]
    devices: Indices
    groups: tuple[RowGroup, ...]


def read_nights(rows: pl.DataFrame, work: pl.DataFrame) -> Nights:
    """Returns rows and what they were priced from, in any order, as arrays.

    Raises:
        ValueError: If there is work of a row that is not there.
    """
    facts = rows.select(*_KEY, "profile", "attendance").sort("profile", *_KEY)
    facts = facts.with_row_index("row")
    placed = work.join(facts.select(*_KEY, "row"), on=_KEY, how="left")
    if lost := placed["row"].null_count():
        raise ValueError(f"work must be of rows of the run: {lost} entries are of none")
    placed = placed.sort("row", "stage", "phase")
    arms = tuple(sorted(facts["arm"].unique().to_list()))
    profiles = tuple(sorted(facts["profile"].unique().to_list()))
    devices = np.unique(facts["device"].to_numpy())
    at_row = placed["row"].to_numpy()
    groups: list[RowGroup] = []
    first = 0
    for (profile, arm), part in facts.group_by(["profile", "arm"], maintain_order=True):
        start, end = np.searchsorted(at_row, [first, first + part.height])
        attendance = part["attendance"]
        group = RowGroup(
            arm=arms.index(str(arm)),
            profile=profiles.index(str(profile)),
            device=np.searchsorted(devices, part["device"].to_numpy()),
            replied=attendance.is_in(REPLIED).to_numpy(),
            late=(attendance == "late").to_numpy(),
            entries=_entries(placed[int(start) : int(end)], first),
        )
        groups.append(group)
        first += part.height
    return Nights(arms=arms, profiles=profiles, devices=devices, groups=tuple(groups))


def _entries(placed: pl.DataFrame, first: int) -> dict[Phase, Entries]:
    found: dict[Phase, Entries] = {}
    for phase in Phase:
        part = placed.filter(pl.col("phase") == phase.value)
        if part.height:
            stages = part["stage"].replace_strict({s.value: place for s, place in ORDER.items()})
            found[phase] = Entries(
                row=part["row"].to_numpy().astype(np.int64) - first,
                flop=part["flop"].to_numpy(),
                moved_bytes=part["moved_bytes"].to_numpy(),
                bursts=part["bursts"].to_numpy(),
                stage=stages.to_numpy().astype(np.int64),
            )
    return found
