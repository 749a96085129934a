"""Sends a release's files by digest to machines that do not share our folders.

A worker uses the release's folder where it holds the same bytes; else it unpacks the parcel's
content into a folder of its own machine that is named by the digest of all files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fleettune.releases.model_files import file_digest

PATTERNS = ("*.json", "*.safetensors")
"""What a backbone is loaded from; other files, pickles above all, never travel."""

CACHE = "fleettune-releases"
"""Folder for unpacked releases, in the machine's folder for temporary files."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a release's folder holds.

    Attributes:
        release: The folder, as jobs name it.
        files: Name and SHA-256 of every file, in the order of the names.
    """

    release: str
    files: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all names and digests."""
        return hashlib.sha256(json.dumps(self.files).encode()).hexdigest()

    def content(self) -> dict[str, bytes]:
        """Returns the files' bytes by name."""
        return {name: (Path(self.release) / name).read_bytes() for name, _ in self.files}


def parcel_of(release: str) -> Parcel:
    """Returns the parcel of a release that lies on this machine.

    Raises:
        OSError: If the folder or its ``config.json`` is missing.
    """
    folder = Path(release)
    files = sorted({file for pattern in PATTERNS for file in folder.glob(pattern)})
    if folder / "config.json" not in files:
        raise FileNotFoundError(f"release folder {folder.resolve()} must hold a config.json")
    return Parcel(release, tuple((file.name, file_digest(file)) for file in files))


@lru_cache(maxsize=64)
def find_unpacked(parcel: Parcel) -> Path | None:
    """Returns the folder of this machine that holds the parcel's files; None without one."""
    for folder in (Path(parcel.release), _cached(parcel)):
        if _holds(folder, parcel):
            return folder.resolve()
    return None


def unpack_parcel(parcel: Parcel, content: Mapping[str, bytes]) -> Path:
    """Writes a parcel's files into this machine's cache and returns their folder.

    Raises:
        RuntimeError: If the files are not those of the parcel.
    """
    target = _cached(parcel)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    partial.mkdir(exist_ok=True)
    for name, _ in parcel.files:
        (partial / name).write_bytes(content[name])
    if not _holds(partial, parcel):
        raise RuntimeError(f"release {parcel.release} arrived with other bytes than it was sent")
    if not _holds(target, parcel):
        # a neighbour may unpack the same release: whole folders are swapped, never single files
        shutil.rmtree(target, ignore_errors=True)
        try:
            partial.rename(target)
        except OSError:
            if not _holds(target, parcel):
                raise
    shutil.rmtree(partial, ignore_errors=True)
    find_unpacked.cache_clear()
    return target


def _cached(parcel: Parcel) -> Path:
    return Path(tempfile.gettempdir()) / CACHE / parcel.digest


def _holds(folder: Path, parcel: Parcel) -> bool:
    files = [(folder / name, digest) for name, digest in parcel.files]
    return all(file.is_file() and file_digest(file) == digest for file, digest in files)
