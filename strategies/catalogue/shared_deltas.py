"""Shared deltas: a bounded sample of the deltas that devices sent for each release.

Which devices are in the sample follows from keys alone, so it is the same for every order of
replies. The number of a device and its newest delta of a release are kept, and nothing else about
it. A device counts once, so that a cluster's smallest number of members is one of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from fleettune.adapters.patch import Patch
from fleettune.adapters.patch_files import fetch_patch, keep_patch
from fleettune.seeds import Purpose, stream


@dataclass(slots=True, kw_only=True)
class SharedDeltas:
    """Deltas of a fleet, one per device and release.

    Attributes:
        store: Folder of their patches; devices are given none of it.
        seed: Key of the sample.
        most: How many are kept of a release.
        kept: Digests by device, by release.
    """

    store: Path
    seed: int
    most: int
    kept: dict[int, dict[int, str]] = field(default_factory=dict[int, dict[int, str]])

    def add(self, release: int, device: int, delta: Patch) -> None:
        """Keeps a delta if its device belongs to the sample of those that came so far."""
        held = self.kept.setdefault(release, {})
        if device not in held and len(held) >= self.most:
            last = max(held, key=lambda one: _rank(self.seed, release, one))
            if _rank(self.seed, release, device) > _rank(self.seed, release, last):
                return
            del held[last]
        held[device] = keep_patch(self.store, delta)

    def count(self, release: int) -> int:
        """Returns how many deltas of a release are kept."""
        return len(self.kept.get(release, {}))

    def of(self, release: int) -> tuple[Patch, ...]:
        """Returns the deltas of a release in the order of devices.

        Raises:
            ValueError: If the store lacks one.
        """
        held = self.kept.get(release, {})
        found = (fetch_patch(self.store, held[device]) for device in sorted(held))
        # a digest says what a patch computes: an equal one may have come for another release
        return tuple(replace(patch, release=release) for patch in found)

    def plain(self) -> list[tuple[int, int, str]]:
        """Returns release, device and digest of everything kept, as JSON can hold it."""
        return [
            (release, device, held[device])
            for release, held in sorted(self.kept.items())
            for device in sorted(held)
        ]

    def restore(self, plain: Sequence[tuple[int, int, str]]) -> None:
        """Takes over what `plain` wrote."""
        self.kept = {}
        for release, device, digest in plain:
            self.kept.setdefault(release, {})[device] = digest


@lru_cache(maxsize=4096)
def _rank(seed: int, release: int, device: int) -> tuple[float, int]:
    """Returns the place of a device among all; those with the least ones are in the sample."""
    return float(stream(seed, Purpose.CATALOGUE, 8, release, device).random()), device
