"""Every moment of a run at which something on the disk changes, and death at one of them.

The moments are not listed by hand. Python tells an audit hook of every file that is opened, renamed
or removed; libraries that write by themselves and the run's database are wrapped.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEFORE, EMPTY, HALF = "before it", "file empty", "file half written"
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_DATABASE = ("save", "add_row", "commit_round")


@dataclass(frozen=True)
class Moment:
    """One of them: its number in the run, what happens, and how the death leaves it."""

    number: int
    what: str
    form: str

    def __str__(self) -> str:
        return f"{self.number} {self.what} ({self.form})"


@dataclass
class Watch:
    """Counts the moments of this process; notes them, and dies at one.

    Attributes:
        root: Only what stands below it counts.
        last: The moment of death; None to note all.
        notes: File for what happened and how a death can leave it; outside `root`.
    """

    root: Path
    last: Moment | None = None
    notes: Path = Path(os.devnull)
    _count: int = 0
    _handle: int = -1
    _busy: bool = False

    def note(self, what: str, forms: tuple[str, ...]) -> str | None:
        """Counts a moment; dies, or returns how it is to be left."""
        self._count += 1
        for form in forms:
            os.write(self._handle, f"{self._count}\t{what}\t{form}\n".encode())
        if self.last is None or self._count != self.last.number:
            return None
        if self.last.form == BEFORE:
            die()
        return self.last.form

    def start(self) -> None:
        """Watches this process from now on; call it in a fork, a hook cannot be taken away."""
        self._handle = os.open(self.notes, os.O_WRONLY | os.O_CREAT)
        import safetensors.torch as of_tensors  # noqa: PLC0415 - what a fork needs

        from simulations.checkpoint.store import Store  # noqa: PLC0415 - as above

        sys.addaudithook(self._hear)
        for name in _DATABASE:
            setattr(Store, name, self._around(getattr(Store, name), name))
        for owner, name, place in (
            (of_tensors, "serialize_file", 1),
            (Path, "write_text", 0),
            (Path, "write_bytes", 0),
        ):
            setattr(owner, name, self._torn(getattr(owner, name), name, place))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or event not in {"open", *_CHANGES}:
            return
        where = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(where, str | os.PathLike):
            return
        self._busy = True
        try:
            if event == "open":
                self._opened(str(where), arguments[2])
            elif (name := self._name(str(where), arguments[-1])) is not None:
                self.note(f"{event.removeprefix('os.')} {name}", (BEFORE,))
        finally:
            self._busy = False

    def _opened(self, where: str, flags: int) -> None:
        name = self._name(where)
        if name is None or not flags & _WRITES:
            return
        if self.note(f"open {name}", (BEFORE, EMPTY)) == EMPTY:
            os.close(os.open(where, os.O_WRONLY | os.O_CREAT | (flags & os.O_TRUNC), 0o600))
            die()

    def _name(self, where: str, handle: object = -1) -> str | None:
        """Returns a path below the root; None for any other one."""
        if isinstance(handle, int) and handle >= 0:
            where = f"{Path(f'/proc/self/fd/{handle}').readlink()}/{where}"
        full = Path(os.path.abspath(where))  # noqa: PTH100 - links are not followed
        return str(full.relative_to(self.root)) if full.is_relative_to(self.root) else None

    def _around(self, write: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:  # noqa: ANN401 - any method
            self.note(f"database: {name}", (BEFORE,))
            found = write(*arguments)
            if name == "commit_round":
                self.note("database: behind commit_round", (BEFORE,))
            return found

        return call

    def _torn(self, write: Callable[..., Any], name: str, place: int) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - any function
            file = self._name(os.fspath(arguments[place]))
            forms = (HALF,) if name.startswith("write_") and place == 0 else (BEFORE, HALF)
            form = None if file is None else self.note(f"{name} {file}", forms)
            found = write(*arguments, **named)
            if form == HALF:
                whole = Path(arguments[place])
                os.truncate(whole, whole.stat().st_size // 2)
                die()
            return found

        return call


def read_moments(notes: Path) -> list[Moment]:
    """Returns the moments that a run noted.

    What happens in every round or to every release in the same way stands there once, but for what
    is written into the database.
    """
    found: dict[tuple[str, str], Moment] = {}
    for line in notes.read_text().splitlines():
        number, what, form = line.split("\t")
        what = re.sub(r"\.\w{8}\.partial", ".partial", re.sub(r"[0-9a-f]{32,}", "HASH", what))
        moment = Moment(int(number), what, form)
        same = f"{number} {what}" if what.startswith("database") else what
        found.setdefault((same, form), moment)
    return list(found.values())


def die() -> None:
    """Ends this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
