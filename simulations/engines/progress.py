"""Shows on the terminal how many devices are done, and how far a release's training is."""

from __future__ import annotations

import logging
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class _Listener(logging.Handler):
    """Turns log records that carry a ``progress`` into a bar of their own."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.DEBUG)
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Moves the bar that the record's message names."""
        done = record.__dict__.get("progress")
        if done is None:
            return
        name = record.getMessage()
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=record.__dict__["total"])
        self._progress.update(self._tasks[name], completed=done)


class RunProgress:
    """A context that shows bars while a run goes on."""

    def __init__(self, console: Console, device_nights: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._nights = self._progress.add_task("device nights", total=device_nights)
        self._listener = _Listener(self._progress)
        self._logger = logging.getLogger("strategies")

    def __enter__(self) -> RunProgress:
        """Shows the bars."""
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self._listener)
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the bars as they are."""
        self._progress.stop()
        self._logger.removeHandler(self._listener)
        self._logger.setLevel(self._level)

    def devices_done(self, count: int) -> None:
        """Notes that so many devices lived their night, in all arms."""
        self._progress.advance(self._nights, count)
