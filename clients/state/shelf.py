"""The shelf: patches that a device keeps besides the one in use, per release.

Patches are loaded, swapped and evicted; the backbone is never touched by that, as a patch is
applied beside its weights. What is kept counts against the quota, and the patch that was in use
least recently goes first. A patch knows the release that it was tuned on: for another one it is
taken only where the device decided to reuse it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from flwr.app import ConfigRecord, RecordDict

from clients.adaptation.decision import PatchHistory
from fleettune.adapters.patch import Patch
from fleettune.messages.flower_records import decode_patch, encode_patch
from fleettune.records import build_value, read_json


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shelved:
    """A patch on the shelf.

    Attributes:
        patch: The patch; it names its release.
        version: How often a patch of this release was trained before.
        used: Last round in which it was in use.
        history: What the rule of adaptation knows of it.
    """

    patch: Patch
    version: int = 0
    used: int = 0
    history: PatchHistory = field(default_factory=PatchHistory)

    @property
    def key(self) -> int:
        """The release, of which the shelf holds one patch."""
        return self.patch.release


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Patches that are not in use, at most one per release."""

    patches: tuple[Shelved, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all patches."""
        return sum(item.patch.size_bytes for item in self.patches)

    def find(self, release: int) -> Shelved | None:
        """Returns the patch of a release, None without one."""
        return next((item for item in self.patches if item.key == release), None)

    def load(self, item: Shelved) -> Shelf:
        """Returns the shelf with a patch; an older one of its release makes room.

        The version counts on from the one that it takes the place of.
        """
        before = self.find(item.key)
        version = item.version if before is None else max(item.version, before.version + 1)
        others = [one for one in self.patches if one.key != item.key]
        loaded = [*others, replace(item, version=version)]
        return Shelf(patches=tuple(sorted(loaded, key=lambda one: one.key)))

    def without(self, release: int) -> Shelf:
        """Returns the shelf without the patch of a release."""
        kept = tuple(item for item in self.patches if item.key != release)
        return Shelf(patches=kept)

    def within(self, room_bytes: int) -> Shelf:
        """Returns the shelf without those in use least recently, as many as do not fit."""
        kept = sorted(self.patches, key=lambda item: (-item.used, item.key))
        while kept and sum(item.patch.size_bytes for item in kept) > room_bytes:
            kept.pop()
        return Shelf(patches=tuple(sorted(kept, key=lambda item: item.key)))


EMPTY = Shelf()


def applicable(patch: Patch | None, release: int, *, reused: bool) -> Patch | None:
    """Returns a patch if it may be applied to a release, else None.

    Args:
        patch: The patch.
        release: Version of the release.
        reused: Whether the device decided, for this release, what to do about its patch.
    """
    if patch is None or (patch.release != release and not reused):
        return None
    return patch


def write_shelf(records: RecordDict, name: str, shelf: Shelf) -> None:
    """Writes a shelf into a device's records; an empty one leaves none."""
    for old in [key for key in records if key == name or key.startswith(f"{name}/")]:
        records.pop(old)
    if not shelf.patches:
        return
    told = [
        {"version": item.version, "used": item.used, "history": asdict(item.history)}
        for item in shelf.patches
    ]
    records[name] = ConfigRecord({"json": json.dumps(told)})
    for place, item in enumerate(shelf.patches):
        records[f"{name}/{place}"] = encode_patch(item.patch)


def read_shelf(records: RecordDict, name: str) -> Shelf:
    """Returns the shelf that `write_shelf` wrote.

    Raises:
        ValueError: If it is none.
    """
    if name not in records:
        return EMPTY
    told = read_json(told_in(records, name), name)
    index = build_value(_Index, {"patches": told}, {}, name)
    return Shelf(
        patches=tuple(
            Shelved(
                patch=patch_in(records, f"{name}/{place}"),
                version=one.version,
                used=one.used,
                history=one.history,
            )
            for place, one in enumerate(index.patches)
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What is told of a patch on the shelf."""

    version: int
    used: int
    history: PatchHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """What is told of all of them."""

    patches: tuple[_Entry, ...]


def told_in(records: RecordDict, name: str) -> str:
    """Returns the text of one of a device's records.

    Raises:
        ValueError: If there is none.
    """
    record = records.config_records.get(name, ConfigRecord())
    told = record.get("json")
    if not isinstance(told, str):
        raise ValueError(f"the record {name} of a device must hold a text under json")
    return told


def patch_in(records: RecordDict, name: str) -> Patch:
    """Returns the patch of one of a device's records.

    Raises:
        ValueError: If there is none.
    """
    record = records.array_records.get(name)
    if record is None:
        raise ValueError(f"a device must hold the patch {name}, does not")
    return decode_patch(record)
