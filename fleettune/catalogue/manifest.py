"""Catalogue manifest and offer: what a device downloads to find its start.

A manifest is one safetensors file of some kilobytes. Basis, scale and coordinates are its tensors,
words and entries stand in its header as JSON. It is addressed by the SHA-256 of its bytes, its
entries by the digests of their patches. Its questions are text of the server's that no user wrote,
its answers are the release's, and a device sends nothing back but the digests of what it wants. An
offer travels with a release: a manifest's bytes, with the store that gives out patches by digest.
The store is a folder that server and devices both see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fleettune.adapters.patch import Patch
from fleettune.adapters.patch_files import fetch_patch
from fleettune.adapters.tensor_bytes import read_tensors
from fleettune.catalogue.decomposition import Basis, Floats
from fleettune.catalogue.style_vectors import SUMMARISER_TYPES, Summariser
from fleettune.records import build_value, read_object, to_record
from fleettune.releases.manifest import Manifest

SCHEMA = 3
CORPUS, CLUSTER, IMPORTED = "corpus", "cluster", "imported"
"""Where a patch comes from."""
_ARRAYS = (
    *("scale", "coordinates", "beside", "coordinates_beside"),
    *("whitening", "whitening_of_likes"),
)
"""Fields of a manifest that are tensors of its file, under their own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An entry as a manifest lists it.

    Attributes:
        name: Short name.
        origin: Where its patch comes from: `CORPUS`, `CLUSTER` or `IMPORTED`.
        digest: Digest of its patch, under which the server gives it out.
        size_bytes: Bytes of its download.
    """

    name: str
    origin: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CatalogueManifest:
    """A catalogue as devices see it.

    Attributes:
        release: SHA-256 of the weights of the release that entries were tuned and explained on.
        version: That release's version.
        summariser: How pairs of answers become vectors, on server and device alike.
        basis: The words' directions.
        scale: What every entry of a vector is divided by, ``(d,)``.
        entries: What there is to start from.
        coordinates: ``(entries, words)``.
        beside: Directions without a word that tell entries apart, ``(directions, d)``: orthonormal,
            and orthogonal to the words.
        coordinates_beside: The entries along those, ``(entries, directions)``.
        whitening: What all coordinates are multiplied by before they are compared, ``(n, n)`` for
            n words and directions; the identity where nothing is known of their noise.
        plain: The unpersonalised release's answers to the catalogue's questions, for devices that
            do not let their release answer the user's own.
        questions: Those questions, for devices that compare with answers to like ones.
        whitening_of_likes: As `whitening`, for such devices, whose coordinates are noisier.

    Raises:
        ValueError: If shapes do not fit.
    """

    release: str
    version: int
    summariser: Summariser
    basis: Basis
    scale: Floats
    entries: tuple[Listed, ...]
    coordinates: Floats
    plain: tuple[str, ...] = ()
    beside: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    coordinates_beside: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    whitening: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    questions: tuple[str, ...] = ()
    whitening_of_likes: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        _check_shapes(self)

    def compared(self, *, likes: bool = False) -> Floats:
        """Returns the entries where distances are measured, ``(entries, n)``.

        Args:
            likes: Whether users are compared with plain answers to like questions.
        """
        return self._whitened(self.coordinates, self.coordinates_beside, likes=likes)

    @property
    def middle(self) -> Floats:
        """Mean of the entries' coordinates, ``(words,)``."""
        return self.coordinates.mean(axis=0)

    def place(self, vectors: Floats, *, likes: bool = False) -> Floats:
        """Returns where pairs' vectors ``(pairs, d)``, averaged, are compared with entries."""
        return self.place_each(vectors, 1, likes=likes)[0]

    def place_each(self, vectors: Floats, exchanges: int, *, likes: bool = False) -> Floats:
        """Returns where every exchange is compared with entries, ``(exchanges, n)``.

        Args:
            vectors: Of pairs, exchange by exchange, as many of each.
            exchanges: How many there are.
            likes: As in `compared`.
        """
        means = (vectors / self.scale).reshape(exchanges, -1, vectors.shape[1]).mean(axis=1)
        along = means @ self.beside.T if self.beside.size else np.zeros((exchanges, 0))
        return self._whitened(self.basis.coordinates(means), along, likes=likes)

    def _whitened(self, named: Floats, beside: Floats, *, likes: bool) -> Floats:
        joint = np.concatenate([named, beside], axis=-1) if self.beside.size else named
        by = self.whitening_of_likes if likes else self.whitening
        return joint @ by if by.size else joint

    def check_release(self, release: Manifest) -> None:
        """Raises ValueError if the catalogue is about other weights than a release's."""
        if self.release != release.digest:
            raise ValueError(
                f"a catalogue must be about the device's release {release.digest[:12]}, got one "
                f"about {self.release[:12]}; reuse or retune its entries first"
            )


def encode_manifest(manifest: CatalogueManifest) -> bytes:
    """Returns the bytes of a manifest, single precision; equal manifests have equal bytes."""
    header = {
        "schema": SCHEMA,
        "release": manifest.release,
        "version": manifest.version,
        "summariser": to_record(manifest.summariser),
        "words_from": "measured",
        "words": list(manifest.basis.words),
        "opposites": list(manifest.basis.opposites),
        "entries": [to_record(entry) for entry in manifest.entries],
        "plain": list(manifest.plain),
        "questions": list(manifest.questions),
    }
    arrays = {"basis": manifest.basis.vectors}
    arrays |= {name: getattr(manifest, name) for name in _ARRAYS}
    single = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    return save(single, metadata={"fleettune": json.dumps(header, sort_keys=True)})


def decode_manifest(data: bytes) -> CatalogueManifest:
    """Returns the manifest that `encode_manifest` wrote.

    Raises:
        ValueError: If the bytes are of another schema or do not fit together.
    """
    texts, arrays = read_tensors(data, "a catalogue manifest")
    plain = read_object(texts.get("fleettune", ""), "the header of a catalogue manifest")
    if plain.get("schema") != SCHEMA:
        raise ValueError(
            f"a catalogue manifest must have schema {SCHEMA}, got {plain.get('schema')!r:.80}"
        )
    header = build_value(_Header, plain, {**SUMMARISER_TYPES, "Listed": Listed}, "manifest")
    _check_arrays(arrays)
    doubles = {name: array.astype(np.float64) for name, array in arrays.items()}
    return CatalogueManifest(
        release=header.release,
        version=header.version,
        summariser=header.summariser,
        basis=Basis(words=header.words, opposites=header.opposites, vectors=doubles.pop("basis")),
        entries=header.entries,
        plain=header.plain,
        questions=header.questions,
        **doubles,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What of a manifest stands in its file as JSON."""

    schema: int
    release: str
    version: int
    summariser: Summariser
    words_from: str
    words: tuple[str, ...]
    opposites: tuple[str, ...]
    entries: tuple[Listed, ...]
    plain: tuple[str, ...]
    questions: tuple[str, ...]

    def __post_init__(self) -> None:
        if type(self.summariser).__name__ not in SUMMARISER_TYPES:
            raise ValueError(f"summariser must be one of {sorted(SUMMARISER_TYPES)}")


def _check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raises ValueError if arrays are not those of a manifest: finite floats, all of them there."""
    if set(arrays) != {"basis", *_ARRAYS}:
        raise ValueError(f"a manifest must hold basis, {', '.join(_ARRAYS)}, got {sorted(arrays)}")
    for name, array in arrays.items():
        sides = 1 if name == "scale" else 2
        if array.dtype != np.float32 or array.ndim != sides or not np.isfinite(array).all():
            raise ValueError(
                f"{name} of a manifest must be finite float32 of {sides} dimensions, got "
                f"{array.dtype} of {array.ndim}"
            )


def manifest_digest(data: bytes) -> str:
    """Returns the SHA-256 by which a manifest's bytes are addressed."""
    return hashlib.sha256(data).hexdigest()


def _check_shapes(manifest: CatalogueManifest) -> None:
    words, size = manifest.basis.vectors.shape
    entries = len(manifest.entries)
    if manifest.coordinates.shape != (entries, words) or manifest.scale.shape != (size,):
        raise ValueError(
            f"a manifest of {entries} entries and {words} words of {size} must have coordinates "
            f"and a scale of that shape, got {manifest.coordinates.shape} and "
            f"{manifest.scale.shape}"
        )
    count, width = manifest.beside.shape
    every = words + count
    fits = (
        (not count or (width, manifest.coordinates_beside.shape) == (size, (entries, count)))
        and manifest.whitening.shape in ((0, 0), (every, every))
        and manifest.whitening_of_likes.shape == manifest.whitening.shape
    )
    if not fits:
        raise ValueError(
            f"a manifest with {count} directions beside its words must have coordinates and a "
            f"whitening for them, got {manifest.beside.shape}, "
            f"{manifest.coordinates_beside.shape}, {manifest.whitening.shape} and "
            f"{manifest.whitening_of_likes.shape}"
        )
    if manifest.questions and len(manifest.questions) != len(manifest.plain):
        raise ValueError(
            f"a manifest must have a plain answer per question, got {len(manifest.plain)} of "
            f"{len(manifest.questions)}"
        )


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
