"""Hands a run's numbers to its tracker, night by night and at its end."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulations.results.tracked_numbers import NightNumbers, list_final_numbers
from simulations.trackers import Track, Tracker


class TrackedRun:
    """One run and where its numbers go; nothing is opened before there is a number."""

    def __init__(self, tracker: Tracker, folder: Path, arms: Sequence[str], metric: str) -> None:
        """Takes the tracker, the run's folder, its arms and its headline metric."""
        self._tracker, self._folder = tracker, folder
        self._numbers = NightNumbers(arms, metric)
        self._first = 0
        self._track: Track | None = None

    def note_row(self, row: Mapping[str, Any]) -> None:
        """Takes in what one device did in one night of one arm."""
        self._numbers.note_row(row)

    def restore(self, nights: int) -> None:
        """Notes that the rows so far are of nights that an earlier process told of."""
        self._numbers.end_night()
        self._first = nights

    def end_night(self, night: int) -> None:
        """Tells what every arm came to by a night, counted from 0."""
        with _told():
            self._open().log(self._numbers.end_night(), night)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Tells what the summary says, as of the last night, and ends the run."""
        with _told():
            track = self._open()
            track.log(list_final_numbers(summary), summary["run"]["rounds"] - 1)
            track.close()

    def _open(self) -> Track:
        if self._track is None:
            self._track = self._tracker.open(self._folder, self._first)
        return self._track


@contextmanager
def _told() -> Generator[None]:
    """Says of any fault of a tracker, which may be the user's, that the run is not lost."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"the tracker failed ({type(error).__name__}: {error}); correct it, or go on without "
            "it: resume=RUN tracker=none"
        ) from error
