"""The shelf: patches that a device keeps besides the one in use, per release.

Patches are loaded, swapped and evicted; the backbone is never touched by that, as a patch is
applied beside its weights. What is kept counts against the quota, and the patch that was in use
least recently goes first. A patch knows the release that it was tuned on: for another one it is
taken only where the device decided to reuse it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from flwr.app import ConfigRecord, RecordDict

from clients.adaptation.decision import PatchHistory
from fleettune.adapters.patch import Patch
from fleettune.messages.flower_records import decode_patch, encode_patch


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
    """Returns the shelf that `write_shelf` wrote."""
    if name not in records:
        return EMPTY
    told = json.loads(cast(str, records.config_records[name]["json"]))
    return Shelf(patches=tuple(_read(records, name, told)))


def _read(records: RecordDict, name: str, told: Iterable[dict[str, Any]]) -> Iterable[Shelved]:
    for place, plain in enumerate(told):
        yield Shelved(
            patch=decode_patch(records.array_records[f"{name}/{place}"]),
            version=plain["version"],
            used=plain["used"],
            history=PatchHistory(**plain["history"]),
        )
