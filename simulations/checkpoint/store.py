"""Keeps in one SQLite file all that a run needs to go on after its driver died.

States and rows of a round are written as its cohorts finish, inside one transaction that ends with
the round: memory stays flat (SQLite moves what it has no room for into its log file), and a driver
killed at any moment leaves the round before it, whole. Random streams are keyed by seed, purpose,
device and round (`fleettune.seeds`), so the round's number and the seed are all there is to keep of
them.

``synchronous=NORMAL``: with a write-ahead log a transaction is whole or absent also after a power
cut, which may take the last rounds away but never half of one. After ``kill -9`` nothing committed
is lost. ``FULL`` would wait for the disk every round and save at most a few rounds of work.

Whatever is kept has a checksum that is compared whenever it is read, and a server state names the
sum of all of them. So a disk that changes bits gives an error and never other results.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    except (DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"a device state must hold Flower's records: {error}") from error


VERSIONS_KEPT = 2
"""Versions of a state: the newest and the one that its last round started from."""

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE device_state (
    arm TEXT, device INTEGER, round INTEGER, content BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (arm, device, round));
CREATE TABLE rows (
    arm TEXT, device INTEGER, round INTEGER, content BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (arm, device, round));
CREATE TABLE server_state (
    round INTEGER PRIMARY KEY, content BLOB NOT NULL, total INTEGER NOT NULL,
    host_seconds REAL NOT NULL, checksum INTEGER NOT NULL);
"""

_FORGET = f"""
DELETE FROM device_state WHERE arm = ?1 AND device = ?2 AND (round = ?3 OR round <= (
    SELECT round FROM device_state WHERE arm = ?1 AND device = ?2 AND round < ?3
    ORDER BY round DESC LIMIT 1 OFFSET {VERSIONS_KEPT - 1})) RETURNING checksum
"""
"""Drops what a device's state of a round replaces, and all versions but those that are kept."""

_NOT_DAMAGE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""Primary codes of faults of the place that a file lies in."""


def checksum(content: bytes, *key: object) -> int:
    """Returns the CRC-32 of a key and what stands under it: moved content does not fit either.

    It tells damage and not malice. On one core it reads more than 1 GB/s.
    """
    return zlib.crc32(content, zlib.crc32(repr(key).encode()))


class Store:
    """One run's checkpoint: device states, rows and server states, committed round by round.

    Whatever reads or writes raises ValueError if the file is damaged.
    """

    def __init__(self, file: Path) -> None:
        """Opens a run's checkpoint, or begins one; one that is there is read and checked whole.

        Raises:
            ValueError: If another process has it open, another schema wrote it, or it is damaged.
        """
        # users' texts stand in it: nobody else may read them
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        self._file = file
        self._db = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            with self._told():
                self._open()
                self._last, self._total, self._earlier_s = self._position()
        except BaseException:
            self._db.close()
            raise
        self._opened = time.monotonic()

    def _open(self) -> None:
        # exclusive: a second driver of the same run is refused, and no shared memory is needed
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        # an index that misses a row, or a page that is called free, would damage what is sound
        (said,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            raise self._damage(said)
        if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(CHECKPOINT_FORMAT),))
        found = self._db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        self._db.execute("COMMIT")
        if found is None:
            raise self._damage("it does not say its schema")
        if found[0] != str(CHECKPOINT_FORMAT):
            raise ValueError(
                f"{self._file} must have schema {CHECKPOINT_FORMAT}, got {found[0]}; "
                "start the run anew"
            )

    def _position(self) -> tuple[int, int, float]:
        """Returns last round, sum of all checksums and seconds, after a look at all there is."""
        found = sum(
            check for table in ("device_state", "rows") for _, check in self._contents(table)
        )
        newest = self._newest_server_state()
        last, total, spent_s = (-1, 0, 0.0) if newest is None else newest[1:]
        if found != total:
            raise self._damage(f"its states and rows are not those of round {last}")
        return last, total, spent_s

    @contextmanager
    def _told(self) -> Generator[None]:
        """Says of an error of SQLite's what it means for the run."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # what Python itself says of damaged text has no code
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if code in _NOT_DAMAGE:
                raise
            if code == sqlite3.SQLITE_BUSY:
                raise ValueError(
                    f"{self._file} must be a checkpoint that no other process uses: {error}"
                ) from error
            if code == sqlite3.SQLITE_READONLY:
                raise ValueError(
                    f"checkpoint {self._file} cannot be written ({error}); make it writable, or "
                    "start the run anew in another folder"
                ) from error
            raise self._damage(str(error)) from error

    def _damage(self, what: str) -> ValueError:
        return ValueError(
            f"checkpoint {self._file} is damaged ({' '.join(what.split())}) and cannot be resumed; "
            "start the run anew in another folder"
        )

    def _compare(self, content: object, found: object, what: str, *key: object) -> None:
        if not isinstance(content, bytes) or checksum(content, *key) != found:
            raise self._damage(f"the {what} {key} is not what was written")

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
        with self._told():
            return {holder: self._newest(holder) for holder in holders}

    def save(self, states: Mapping[Holder, RecordDict]) -> None:
        """Writes states into the round that is under way."""
        with self._told():
            self._begin()
            for (arm, device), state in states.items():
                key, blob = (arm, device, self._last + 1), to_blob(state)
                for (gone,) in self._db.execute(_FORGET, key).fetchall():
                    self._total -= gone
                self._insert("device_state", key, blob)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Writes one row of ``rows.parquet`` into the round that is under way."""
        with self._told():
            self._begin()
            key = (row["arm"], row["device"], row["round"])
            self._insert("rows", key, json.dumps(row).encode())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields all rows in the order of arm, device and round."""
        for row, _ in self._contents("rows", "ORDER BY arm, device, round"):
            yield json.loads(row)

    def commit_round(self, round_number: int, server_state: Mapping[str, Any]) -> None:
        """Ends a round: its device states, rows and server state are there from now on, or none is.

        Raises:
            ValueError: If it is not the round after the last one.
        """
        if round_number != self._last + 1:
            raise ValueError(f"the next round must be {self._last + 1}, got {round_number}")
        content = json.dumps(server_state).encode()
        key = (round_number, self._total, self.host_seconds)
        with self._told():
            self._begin()
            self._db.execute(
                "INSERT INTO server_state VALUES (?, ?, ?, ?, ?)",
                (round_number, content, *key[1:], checksum(content, *key)),
            )
            self._db.execute(
                "DELETE FROM server_state WHERE round <= ?", (round_number - VERSIONS_KEPT,)
            )
            self._db.execute("COMMIT")
        self._last = round_number

    def server_state(self) -> dict[str, Any] | None:
        """Returns the server state of the last committed round; None before the first one."""
        with self._told():
            newest = self._newest_server_state()
        return None if newest is None else cast(dict[str, Any], json.loads(newest[0]))

    def _newest_server_state(self) -> tuple[bytes, int, int, float] | None:
        """Returns the content of the last server state, its round, total and seconds."""
        found = self._db.execute(
            "SELECT content, checksum, round, total, host_seconds FROM server_state "
            "ORDER BY round DESC LIMIT 1"
        ).fetchone()
        if found is None:
            return None
        content, check, *key = found
        self._compare(content, check, "server state", *key)
        return content, *key

    def _newest(self, holder: Holder) -> RecordDict:
        found = self._db.execute(
            "SELECT content, checksum, round FROM device_state WHERE arm = ? AND device = ? "
            "ORDER BY round DESC LIMIT 1",
            holder,
        ).fetchone()
        if found is None:
            return RecordDict()
        content, check, round_number = found
        self._compare(content, check, "device_state", *holder, round_number)
        return from_blob(content)

    def _contents(self, table: str, order: str = "") -> Iterator[tuple[bytes, int]]:
        """Yields content and checksum of all that stands in a table, compared."""
        with self._told():
            for *key, content, check in self._db.execute(
                f"SELECT arm, device, round, content, checksum FROM {table} {order}"
            ):
                self._compare(content, check, table, *key)
                yield content, check

    def _insert(self, table: str, key: tuple[str, int, int], content: bytes) -> None:
        check = checksum(content, *key)
        self._db.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", (*key, content, check))
        self._total += check

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
