"""Where a grid finds what its devices keep: loaded and saved one cohort at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import RecordDict

Holder = tuple[str, int]
"""Whose state: an arm and a node of the grid."""


class DeviceStates(Protocol):
    """What devices keep between their nights."""

    def load(self, holders: Iterable[Holder]) -> dict[Holder, RecordDict]:
        """Returns their newest states; empty records for one that never kept anything."""
        ...

    def save(self, states: Mapping[Holder, RecordDict]) -> None:
        """Keeps the states of a cohort that is done."""
        ...


@dataclass(slots=True)
class MemoryStates:
    """States in this process's memory, gone with it: for tests and small experiments."""

    kept: dict[Holder, RecordDict] = field(default_factory=dict[Holder, RecordDict])

    def load(self, holders: Iterable[Holder]) -> dict[Holder, RecordDict]:
        """Returns the states; the records are the kept ones themselves."""
        return {holder: self.kept.get(holder, RecordDict()) for holder in holders}

    def save(self, states: Mapping[Holder, RecordDict]) -> None:
        """Keeps them."""
        self.kept.update(states)
