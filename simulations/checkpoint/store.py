"""Keeps in one SQLite file all that a run needs to go on after its driver died.

States and rows of a round are written as its cohorts finish, inside one transaction that ends with
the round: memory stays flat (SQLite moves what it has no room for into its log file), and a driver
killed at any moment leaves the round before it, whole. Random streams are keyed by seed, purpose,
device and round (`fleettune.seeds`), so the round's number and the seed are all there is to keep of
them.

``synchronous=NORMAL``: with a write-ahead log a transaction is whole or absent also after a power
cut, which may take the last rounds away but never half of one. After ``kill -9`` nothing committed
is lost. ``FULL`` would wait for the disk every round and save at most a few rounds of work.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecords
from google.protobuf.message import DecodeError

from simulations.checkpoint.versions import CHECKPOINT_FORMAT

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


def to_blob(state: RecordDict) -> bytes:
    """Returns a device's records as bytes."""
    return recorddict_to_proto(state).SerializeToString()


def from_blob(blob: bytes) -> RecordDict:
    """Returns the records that `to_blob` wrote.

    Raises:
        ValueError: If the bytes are no records.
    """
    try:
        return recorddict_from_proto(ProtoRecords.FromString(blob))
    except DecodeError as error:
        raise ValueError(f"a device state must hold Flower's records: {error}") from error


VERSIONS_KEPT = 2
"""Versions of a state: the newest and the one that its last round started from."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE device_state (
    arm TEXT, device INTEGER, round INTEGER, blob BLOB NOT NULL, PRIMARY KEY (arm, device, round));
CREATE TABLE rows (
    arm TEXT, device INTEGER, round INTEGER, row TEXT NOT NULL, PRIMARY KEY (arm, device, round));
CREATE TABLE server_state (
    round INTEGER PRIMARY KEY, state TEXT NOT NULL, rows INTEGER NOT NULL,
    host_seconds REAL NOT NULL);
"""


class Store:
    """One run's checkpoint: device states, rows and server states, committed round by round."""

    def __init__(self, file: Path) -> None:
        """Opens a run's checkpoint, or begins one.

        Raises:
            ValueError: If another process has it open, or another schema wrote it.
        """
        # users' texts stand in it: nobody else may read them
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        self._file = file
        self._db = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            self._open()
            self._earlier_s, self._last, self._rows = self._position()
        except sqlite3.Error as error:
            self._db.close()
            raise ValueError(
                f"{file} must be a checkpoint that no other process uses: {error}"
            ) from error
        except ValueError:
            self._db.close()
            raise
        self._opened = time.monotonic()

    def _open(self) -> None:
        # exclusive: a second driver of the same run is refused, and no shared memory is needed
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(CHECKPOINT_FORMAT),))
        found = self._db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0]
        self._db.execute("COMMIT")
        if found != str(CHECKPOINT_FORMAT):
            raise ValueError(
                f"{self._file} must have schema {CHECKPOINT_FORMAT}, got {found}; "
                "start the run anew"
            )

    def _position(self) -> tuple[float, int, int]:
        newest = self._db.execute(
            "SELECT host_seconds, round, rows FROM server_state ORDER BY round DESC LIMIT 1"
        ).fetchone()
        position: tuple[float, int, int] = newest or (0.0, -1, 0)
        (found,) = self._db.execute("SELECT count(*) FROM rows").fetchone()
        if found != position[2]:
            raise ValueError(
                f"{self._file} must hold {position[2]} rows after round {position[1]}, "
                f"got {found}; it was changed by somebody else"
            )
        return position

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what was not committed is gone."""
        self._db.close()

    @property
    def last_round(self) -> int:
        """The newest committed round; -1 before the first one."""
        return self._last

    @property
    def host_seconds(self) -> float:
        """Seconds of this machine spent on the run so far, lost rounds excepted."""
        return self._earlier_s + time.monotonic() - self._opened

    def load(self, holders: Iterable[Holder]) -> dict[Holder, RecordDict]:
        """Returns the newest states; empty records for a device that never kept anything."""
        return {holder: self._newest(holder) for holder in holders}

    def save(self, states: Mapping[Holder, RecordDict]) -> None:
        """Writes states into the round that is under way."""
        self._begin()
        for (arm, device), state in states.items():
            self._db.execute(
                "INSERT OR REPLACE INTO device_state VALUES (?, ?, ?, ?)",
                (arm, device, self._last + 1, to_blob(state)),
            )
            self._db.execute(
                "DELETE FROM device_state WHERE arm = ?1 AND device = ?2 AND round <= ("
                "SELECT round FROM device_state WHERE arm = ?1 AND device = ?2 "
                f"ORDER BY round DESC LIMIT 1 OFFSET {VERSIONS_KEPT})",
                (arm, device),
            )

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Writes one row of ``rows.parquet`` into the round that is under way."""
        self._begin()
        self._db.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?)",
            (row["arm"], row["device"], row["round"], json.dumps(row)),
        )
        self._rows += 1

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields all rows in the order of arm, device and round."""
        for (row,) in self._db.execute("SELECT row FROM rows ORDER BY arm, device, round"):
            yield json.loads(row)

    def commit_round(self, round_number: int, server_state: Mapping[str, Any]) -> None:
        """Ends a round: its device states, rows and server state are there from now on, or none is.

        Raises:
            ValueError: If it is not the round after the last one.
        """
        if round_number != self._last + 1:
            raise ValueError(f"the next round must be {self._last + 1}, got {round_number}")
        self._begin()
        self._db.execute(
            "INSERT INTO server_state VALUES (?, ?, ?, ?)",
            (round_number, json.dumps(server_state), self._rows, self.host_seconds),
        )
        self._db.execute(
            "DELETE FROM server_state WHERE round <= ?", (round_number - VERSIONS_KEPT,)
        )
        self._db.execute("COMMIT")
        self._last = round_number

    def server_state(self) -> dict[str, Any] | None:
        """Returns the server state of the last committed round; None before the first one."""
        found = self._db.execute(
            "SELECT state FROM server_state WHERE round = ?", (self._last,)
        ).fetchone()
        return None if found is None else cast(dict[str, Any], json.loads(found[0]))

    def _newest(self, holder: Holder) -> RecordDict:
        found = self._db.execute(
            "SELECT blob FROM device_state WHERE arm = ? AND device = ? "
            "ORDER BY round DESC LIMIT 1",
            holder,
        ).fetchone()
        return RecordDict() if found is None else from_blob(found[0])

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
