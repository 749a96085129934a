"""Catalogue manifests: there and back, kilobytes, by content; stored patches; summaries by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fleettune.adapters.patch import Factors, Patch
from fleettune.adapters.patch_files import fetch_patch, keep_patch
from fleettune.adapters.tensor_bytes import read_tensors
from fleettune.catalogue.decomposition import Basis
from fleettune.catalogue.manifest import (
    CatalogueManifest,
    Listed,
    decode_manifest,
    encode_manifest,
    manifest_digest,
)
from fleettune.catalogue.style_vectors import (
    FUNCTION_WORDS,
    AnswerEmbedding,
    Stylometry,
    stylometric_counts,
)
from fleettune.shapes import Site

WORDS, SIZE = 12, 96


def manifest(entries: int = 64) -> CatalogueManifest:
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(SIZE, WORDS)))[0].T
    return CatalogueManifest(
        release="a" * 64,
        version=3,
        summariser=AnswerEmbedding(),
        basis=Basis(
            words=tuple(f"word{n}" for n in range(WORDS)),
            opposites=tuple(f"other{n}" for n in range(WORDS)),
            vectors=vectors.astype(np.float32).astype(float),
        ),
        scale=np.ones(SIZE),
        entries=tuple(
            Listed(name=f"e{n}", origin="corpus", digest=f"{n:064d}", size_bytes=1000)
            for n in range(entries)
        ),
        coordinates=rng.normal(size=(entries, WORDS)).astype(np.float32).astype(float),
        plain=("a short answer.",),
    )


def test_a_manifest_comes_back_from_its_bytes() -> None:
    given = manifest()
    found = decode_manifest(encode_manifest(given))
    assert np.array_equal(found.basis.vectors, given.basis.vectors)
    assert np.array_equal(found.coordinates, given.coordinates)
    assert found.summariser == AnswerEmbedding()
    assert (found.entries, found.plain, found.version) == (given.entries, given.plain, 3)
    assert encode_manifest(found) == encode_manifest(given)


def test_a_manifest_of_64_entries_is_kilobytes() -> None:
    assert len(encode_manifest(manifest())) < 25_000


def test_equal_manifests_have_one_address_and_others_another() -> None:
    address = manifest_digest(encode_manifest(manifest()))
    assert address == manifest_digest(encode_manifest(manifest()))
    assert address != manifest_digest(encode_manifest(manifest(entries=63)))
    named = replace(manifest(), summariser=Stylometry())
    assert address != manifest_digest(encode_manifest(named))


def test_what_is_no_manifest_is_refused() -> None:
    with pytest.raises(ValueError, match="catalogue manifest must be safetensors"):
        decode_manifest(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    data = encode_manifest(manifest()).replace(b'\\"schema\\": 3', b'\\"schema\\": 9')
    with pytest.raises(ValueError, match="schema 3, got 9"):
        decode_manifest(data)


def test_coordinates_must_fit_the_words() -> None:
    with pytest.raises(ValueError, match="of that shape"):
        replace(manifest(), coordinates=np.zeros((64, 3)))


def test_a_stored_patch_is_found_by_what_it_computes(tmp_path: Path) -> None:
    ones = Factors(a=np.ones((1, 2), np.float32), b=np.ones((3, 1), np.float32))
    patch = Patch(release=4, alpha=2.0, factors={Site(0, "q"): ones})
    digest = keep_patch(tmp_path, patch)
    found = fetch_patch(tmp_path, digest)
    assert (found.digest(), found.release, found.alpha) == (digest, 4, 2.0)
    with pytest.raises(ValueError, match="does not"):
        fetch_patch(tmp_path, "0" * 64)
    (tmp_path / f"{digest}.safetensors").rename(tmp_path / f"{'1' * 64}.safetensors")
    with pytest.raises(ValueError, match="must have that digest"):
        fetch_patch(tmp_path, "1" * 64)


@pytest.mark.parametrize("left", [b"", b"\0" * 40, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_patch_is_refused_by_its_file_and_written_again_by_who_has_it(
    tmp_path: Path, left: bytes
) -> None:
    ones = Factors(a=np.ones((1, 2), np.float32), b=np.ones((3, 1), np.float32))
    patch = Patch(release=4, alpha=2.0, factors={Site(0, "q"): ones})
    digest = keep_patch(tmp_path, patch)
    (tmp_path / f"{digest}.safetensors").write_bytes(left)
    with pytest.raises(ValueError, match=rf"{digest}.safetensors must .*damaged; delete it"):
        fetch_patch(tmp_path, digest)
    keep_patch(tmp_path, patch)
    assert fetch_patch(tmp_path, digest).digest() == digest


def test_counts_by_hand() -> None:
    found = stylometric_counts("Sure, a nutrition option for Ana!")
    assert found[:9].tolist() == [6, 33, pytest.approx(26 / 6), 9, 1, 2, 1, 1, 0]
    named = dict(zip(FUNCTION_WORDS, found[9:], strict=True))
    assert {word for word, count in named.items() if count} == {"a", "for"}
    assert len(FUNCTION_WORDS) == 70
    assert stylometric_counts("").tolist() == [0.0] * 79


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"scale": None}, "must hold basis, scale"),
        ({"extra": np.ones(2, np.float32)}, "must hold basis, scale"),
        ({"scale": np.full(SIZE, np.nan, np.float32)}, "scale of a manifest must be finite"),
        ({"scale": np.ones((SIZE, 1), np.float32)}, "finite float32 of 1 dimensions"),
        ({"basis": np.ones((WORDS, SIZE), np.int32)}, "basis of a manifest must be finite float32"),
    ],
)
def test_arrays_that_are_no_manifest_are_refused(
    spoil: dict[str, np.ndarray | None], message: str
) -> None:
    texts, arrays = read_tensors(encode_manifest(manifest()), "a manifest")
    kept = {name: array for name, array in (arrays | spoil).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        decode_manifest(save(kept, metadata=texts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": None}, r"manifest\.words must be"),
        ({"entries": [3]}, r"manifest\.entries\[0\]"),
        ({"summariser": {"type": "Listed"}}, r"manifest\.summariser"),
        ({"more": 1}, r"manifest\.more is not a known key"),
    ],
)
def test_a_header_that_is_no_manifest_s_names_the_field(
    change: dict[str, object], message: str
) -> None:
    texts, arrays = read_tensors(encode_manifest(manifest()), "a manifest")
    header = json.dumps(json.loads(texts["fleettune"]) | change)
    with pytest.raises(ValueError, match=message):
        decode_manifest(save(arrays, metadata={"fleettune": header}))
