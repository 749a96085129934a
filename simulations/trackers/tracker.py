"""What a tracker is, and the one that keeps nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable


class Track(Protocol):
    """Where the numbers of one run go."""

    def log(self, values: Mapping[str, float], night: int) -> None:
        """Keeps numbers by name, as of a night, counted from 0."""
        ...

    def close(self) -> None:
        """Ends the run, so that others see it whole."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """A choice of where numbers go."""

    def check(self) -> None:
        """Raises ValueError if what it needs is not installed."""
        ...

    def open(self, folder: Path, night: int) -> Track:
        """Begins or goes on with a run.

        Args:
            folder: The run's own folder.
            night: The first night that is still to come; above 0 in a resumed run.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoTrack:
    """Keeps no number."""

    def log(self, values: Mapping[str, float], night: int) -> None:
        """Keeps nothing."""

    def close(self) -> None:
        """Ends nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTracker:
    """Numbers go into the run's own folder only."""

    def check(self) -> None:
        """Needs nothing."""

    def open(self, folder: Path, night: int) -> Track:
        """Returns what keeps nothing."""
        return NoTrack()


def check_installed(tracker: str, module: str) -> None:
    """Raises ValueError, saying what to install, if a tracker's package is missing."""
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"tracker={tracker} needs the package {module}: pip install 'fleettune[trackers]'"
        )
