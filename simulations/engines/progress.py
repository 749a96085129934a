"""Says how far a run is: two moving lines in a terminal, else a plain line after every night.

The same plain line goes into the run's log. All joules are simulated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from simulations.results.recorder import Rows
from strategies.releases.training import STEPS_LOG

log = logging.getLogger(__name__)

_HOUR = 3600
_KILO = 1e3


@dataclass(frozen=True, slots=True)
class NotedRows:
    """Rows that are kept elsewhere, and shown to somebody first.

    Attributes:
        kept: Where they are kept.
        note: Who sees each of them.
    """

    kept: Rows
    note: Callable[[Mapping[str, Any]], None]

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Shows one row, then keeps it."""
        self.note(row)
        self.kept.add_row(row)

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """Returns all rows."""
        return self.kept.rows()


class _Listener(logging.Handler):
    """Hands on the log records that carry a ``progress``."""

    def __init__(self, show: Callable[[str, int, int], None]) -> None:
        super().__init__(logging.DEBUG)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Hands on what is done of how much, and of what."""
        self._show(record.getMessage(), *(record.__dict__[name] for name in ("progress", "total")))


class RunProgress:
    """A context that says how far a run is, as rows come and devices are done."""

    def __init__(
        self,
        console: Console,
        nights: Sequence[int],
        on_row: Callable[[Mapping[str, Any]], None] = lambda _row: None,
        on_night: Callable[[int], None] = lambda _night: None,
    ) -> None:
        """Takes where to say it, how many devices take part in each night, and who else is told.

        Args:
            console: Where lines appear.
            nights: Devices of each night.
            on_row: Called with every row, also those of an earlier process.
            on_night: Called with the number of a night, from 0, when all its devices are done.
        """
        self._on_row, self._on_night = on_row, on_night
        self._console = console
        self._ends = list(accumulate(nights))
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
        )
        self._task = self._bar.add_task("device-nights", total=self._ends[-1], pace="")
        self._training: dict[str, TaskID] = {}
        self._listener = _Listener(self._show_training)
        self._done = self._restored = self._release = self._retuned = self._reused = 0
        self._energy_j = 0.0
        self._began = time.monotonic()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4)

    def __enter__(self) -> RunProgress:
        """Begins to say it; training of releases reports here from now on."""
        STEPS_LOG.addHandler(self._listener)
        STEPS_LOG.setLevel(logging.DEBUG)
        if self._console.is_terminal:
            self._live.start()
        self._began = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the last lines as they are."""
        self._live.stop()
        STEPS_LOG.setLevel(logging.NOTSET)
        STEPS_LOG.removeHandler(self._listener)

    def note_row(self, row: Mapping[str, Any]) -> None:
        """Counts what one device did in one night of one arm."""
        self._on_row(row)
        self._release = max(self._release, row["release"])
        self._retuned += row["decision"] == "retune"
        self._reused += row["decision"] == "reuse"
        self._energy_j += row["energy_j"]

    def restore(self, nights: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes over the nights of an earlier process; they say nothing of this one's pace."""
        if nights:
            for row in rows:
                self.note_row(row)
            self._done = self._restored = self._ends[nights - 1]

    def devices_done(self, count: int) -> None:
        """Notes that so many devices lived their night, in all arms."""
        before = self._night
        self._done += count
        self._bar.update(self._task, completed=self._done, pace=self._pace)
        if self._night > before:
            self._say(
                f"night {self._night} of {len(self._ends)}: {self._done} of {self._ends[-1]} "
                f"device-nights, {self._pace}; {self._so_far}"
            )
            self._on_night(self._night - 1)

    @property
    def _night(self) -> int:
        """How many nights are over."""
        return sum(end <= self._done for end in self._ends)

    @property
    def _pace(self) -> str:
        """What is done per second, and how long the rest takes at that pace."""
        done, seconds = self._done - self._restored, time.monotonic() - self._began
        if not done:
            return ""
        left = describe_seconds((self._ends[-1] - self._done) * seconds / done)
        per_second = f"{done / seconds:.3g} per second"
        return per_second if self._done >= self._ends[-1] else f"{per_second}, {left} left"

    @property
    def _so_far(self) -> str:
        return (
            f"release {self._release}, {self._retuned} tunes and {self._reused} reuses, "
            f"{self._energy_j / _KILO:,.3g} kJ simulated so far"
        )

    def _render(self) -> Group:
        night = min(self._night + 1, len(self._ends))
        return Group(self._bar, Text(f"night {night} of {len(self._ends)}: {self._so_far}"))

    def _show_training(self, name: str, done: int, total: int) -> None:
        if name not in self._training:
            self._training[name] = self._bar.add_task(name, total=total, pace="")
            self._say(f"{name}: {total} steps")
        self._bar.update(self._training[name], completed=done)

    def _say(self, line: str) -> None:
        log.info(line)
        if not self._console.is_terminal:
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)


def describe_seconds(seconds: float) -> str:
    """Returns a length of time in seconds, minutes or hours, to about a tenth."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
