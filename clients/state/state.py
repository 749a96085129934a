"""What a device keeps between nights, and its quota.

On our engine and in stock simulation the state lives in Flower's `Context.state`; it never
travels to the server.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from flwr.app import ConfigRecord, RecordDict

from clients.adaptation.decision import PatchHistory
from clients.policy import Quota
from clients.selection.buffer import ANSWERED, Item, Note, total_bytes
from clients.state.shelf import (
    EMPTY,
    Shelf,
    applicable,
    patch_in,
    read_shelf,
    told_in,
    write_shelf,
)
from fleettune.adapters.patch import Patch
from fleettune.data.exchanges import Exchange
from fleettune.fleet.joining import Join
from fleettune.messages.flower_records import encode_patch
from fleettune.messages.report import NO_RELEASE
from fleettune.records import build_value, read_object, to_record
from fleettune.releases.manifest import MANIFEST_TYPES, Manifest

SCHEMA = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """A device between two nights.

    Attributes:
        last_day: Last day whose exchanges were read; -1 before the first night.
        held: The release held, without drifts and deltas; None before the first download.
        settled: Version of the newest release about which the device did what it decided; -1
            before the first one.
        buffer: Exchanges held, in time order.
        notes: What is kept beside each of them; empty where that is nothing and all are answered.
        patch: The patch in use, None without one.
        extra_bytes: Bytes kept besides buffer and patch (embeddings for retrieval).
        seen: Exchanges that ever arrived.
        asked: Preferred answers that the user was ever asked for.
        before: The release held before `held`, kept until the device has settled what to do about
            that; None otherwise.
        history: What its rule of adaptation keeps about the patch.
        residual: What a lossy codec left out of earlier deltas (`fleettune.deltas.error_feedback`).
        shelf: Patches that are not in use.
        patch_version: How often a patch of the same release was trained before the one in use.
    """

    last_day: int = -1
    held: Manifest | None = None
    settled: int = -1
    buffer: tuple[Exchange, ...] = field(default=())
    patch: Patch | None = None
    extra_bytes: int = 0
    notes: tuple[Note, ...] = ()
    seen: int = 0
    asked: int = 0
    before: Manifest | None = None
    history: PatchHistory = field(default_factory=PatchHistory)
    residual: Patch | None = None
    shelf: Shelf = EMPTY
    patch_version: int = 0

    @property
    def items(self) -> tuple[Item, ...]:
        """The exchanges with their notes."""
        notes = self.notes or (ANSWERED,) * len(self.buffer)
        pairs = zip(self.buffer, notes, strict=True)
        return tuple(Item(exchange=exchange, note=note) for exchange, note in pairs)

    @property
    def answered(self) -> tuple[Exchange, ...]:
        """The exchanges whose preferred answer the device knows."""
        return tuple(item.exchange for item in self.items if item.note.asked)

    @property
    def release(self) -> int:
        """Version of the release held; -1 before the first download."""
        return NO_RELEASE if self.held is None else self.held.version

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffer's texts and notes."""
        return total_bytes(self.items)

    @property
    def stored_bytes(self) -> int:
        """Bytes of everything that counts against the quota."""
        patch = 0 if self.patch is None else self.patch.size_bytes
        return self.buffer_bytes + patch + self.beside_bytes + self.shelf.size_bytes

    @property
    def beside_bytes(self) -> int:
        """Bytes of what is kept besides the buffer and the patch in use, the shelf left out.

        Whatever else needs the room of the shelf gets it.
        """
        residual = 0 if self.residual is None else self.residual.size_bytes
        return self.extra_bytes + residual

    @property
    def applied(self) -> Patch | None:
        """The patch that it serves with; None where none was decided on for the release held.

        A patch of another release is applied only behind the decision to reuse it: not between a
        download and a decision that another night has to make.
        """
        return applicable(self.patch, self.release, reused=self.settled == self.release)


def with_buffer(state: DeviceState, items: tuple[Item, ...], extra_bytes: int) -> DeviceState:
    """Returns the state with another buffer."""
    notes = tuple(item.note for item in items)
    return replace(
        state,
        buffer=tuple(item.exchange for item in items),
        notes=() if set(notes) <= {ANSWERED} else notes,
        extra_bytes=extra_bytes,
    )


def check_quota(state: DeviceState, quota: Quota) -> DeviceState:
    """Returns the state if it fits its quota.

    Raises:
        RuntimeError: If it does not; no path may lead here, so this is a fault of ours.
    """
    if state.buffer_bytes > quota.buffer_bytes or state.stored_bytes > quota.total_bytes:
        raise RuntimeError(
            f"a device would hold {state.buffer_bytes} bytes of exchanges and "
            f"{state.stored_bytes} bytes in all, over its quota {quota}"
        )
    return state


def join_fleet(state: DeviceState, join: Join | None) -> DeviceState:
    """Returns the state of a device that joins the fleet with a part of it.

    Before its first night it has its user's last few days instead of the whole past.
    """
    if join is None or state.last_day >= 0 or state.held is not None:
        return state
    return replace(state, last_day=max(-1, join.round - join.days))


def read_state(records: RecordDict, arm: str = "") -> DeviceState:
    """Returns the state of a device; a fresh one where nothing was ever written.

    Args:
        records: What the engine keeps for the device.
        arm: Whose state, where several arms share one node's records (stock Flower).

    Raises:
        ValueError: If it was written by another schema, or is damaged.
    """
    if f"{arm}/device" not in records:
        return DeviceState()
    schema = records.config_records.get(f"{arm}/device", ConfigRecord()).get("schema")
    if schema != SCHEMA:
        raise ValueError(f"device state must have schema {SCHEMA}, got {schema!r:.80}")
    plain = read_object(told_in(records, f"{arm}/device"), "device state")
    buffer = _exchanges(plain.pop("buffer", None))
    # its exchanges are checked apart, because there are hundreds of them
    kept = build_value(_Kept, plain, MANIFEST_TYPES, "device state")
    return DeviceState(
        last_day=kept.last_day,
        held=kept.held,
        settled=kept.settled,
        buffer=buffer,
        patch=_read_patch(records, f"{arm}/patch"),
        extra_bytes=kept.extra_bytes,
        notes=tuple(map(_note, kept.notes)),
        seen=kept.seen,
        asked=kept.asked,
        before=kept.before,
        history=kept.history,
        residual=_read_patch(records, f"{arm}/residual"),
        shelf=read_shelf(records, f"{arm}/shelf"),
        patch_version=kept.patch_version,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What of a state is told as JSON, the buffer left out."""

    last_day: int
    held: Manifest | None
    settled: int
    extra_bytes: int
    notes: tuple[tuple[str, tuple[float, ...], bool], ...]
    seen: int
    asked: int
    before: Manifest | None
    history: PatchHistory
    patch_version: int = 0


def _exchanges(told: object) -> tuple[Exchange, ...]:
    try:
        found = tuple(Exchange(**item) for item in cast(list[dict[str, Any]], told))
    except TypeError as error:
        raise ValueError(f"the buffer of a device must hold exchanges: {error}") from error
    for one in found:
        texts, numbers = (one.question, one.response, one.domain), (one.day, one.order)
        if {*map(type, texts)} != {str} or {*map(type, numbers)} != {int}:
            raise ValueError("the buffer of a device must hold exchanges of texts and days")
    return found


def _note(told: tuple[str, tuple[float, ...], bool]) -> Note:
    vector, scores, asked = told
    try:
        return Note(vector=base64.b64decode(vector, validate=True), scores=scores, asked=asked)
    except ValueError as error:
        raise ValueError(f"a note of a device must hold base64: {error}") from error


def _read_patch(records: RecordDict, name: str) -> Patch | None:
    return patch_in(records, name) if name in records else None


def write_state(records: RecordDict, state: DeviceState, arm: str = "") -> None:
    """Writes the state of a device into its records."""
    plain: dict[str, Any] = {
        "last_day": state.last_day,
        "held": None if state.held is None else to_record(state.held),
        "settled": state.settled,
        "buffer": [asdict(exchange) for exchange in state.buffer],
        "extra_bytes": state.extra_bytes,
        "notes": [
            [base64.b64encode(note.vector).decode(), note.scores, note.asked]
            for note in state.notes
        ],
        "seen": state.seen,
        "asked": state.asked,
        "before": None if state.before is None else to_record(state.before),
        "history": asdict(state.history),
    }
    if state.patch_version:
        plain["patch_version"] = state.patch_version
    records[f"{arm}/device"] = ConfigRecord({"schema": SCHEMA, "json": json.dumps(plain)})
    for name, kept in (("patch", state.patch), ("residual", state.residual)):
        records.pop(f"{arm}/{name}", None)
        if kept is not None:
            records[f"{arm}/{name}"] = encode_patch(kept)
    write_shelf(records, f"{arm}/shelf", state.shelf)
