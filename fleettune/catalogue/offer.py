"""Offers: what a device is told of a catalogue, and how it gets what it then wants.

An offer travels with a release: the bytes of a catalogue's manifest, and the store that gives out
its patches by digest. Releases and patches lie in a folder that server and devices both see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from fleettune.adapters.patch import Patch
from fleettune.adapters.patch_files import fetch_patch
from fleettune.catalogue.manifest import CatalogueManifest, decode_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueOffer:
    """A catalogue as it is offered.

    Attributes:
        data: Its manifest (`fleettune.catalogue.manifest.encode_manifest`).
        store: Folder of its patches.
    """

    data: bytes
    store: str

    @property
    def manifest(self) -> CatalogueManifest:
        """What the bytes say.

        Raises:
            ValueError: If they are no manifest.
        """
        return _manifest(self.data)

    def patches(self, wanted: tuple[str, ...]) -> tuple[Patch, ...]:
        """Returns patches by their digests, for the release that the catalogue is about.

        A digest says what a patch computes; one that was reused lies there under its first release.

        Raises:
            ValueError: If the store lacks one, or holds other bytes under its name.
        """
        version = self.manifest.version
        held = (_patch(self.store, digest) for digest in wanted)
        return tuple(replace(patch, release=version) for patch in held)


@lru_cache(maxsize=16)
def _manifest(data: bytes) -> CatalogueManifest:
    """Returns a manifest; all devices of a round are sent the same one."""
    return decode_manifest(data)


@lru_cache(maxsize=256)
def _patch(store: str, digest: str) -> Patch:
    return fetch_patch(Path(store), digest)
