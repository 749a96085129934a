"""Parcels: a release's files reach a machine that lacks them, and no others do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from simulations.engines.release_parcels import find_unpacked, parcel_of, unpack_parcel


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release's folder, on a machine whose cache is empty."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "cache"))
    find_unpacked.cache_clear()
    folder = tmp_path / "release"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_machine_that_has_the_release_uses_its_own_folder(release: Path) -> None:
    assert find_unpacked(parcel_of(str(release))) == release


def test_a_machine_without_the_release_unpacks_it_once(release: Path) -> None:
    parcel = parcel_of(str(release))
    content = parcel.content()
    release.rename(release.with_name("elsewhere"))
    assert find_unpacked(parcel) is None
    folder = unpack_parcel(parcel, content)
    assert find_unpacked(parcel) == folder == unpack_parcel(parcel, content)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == content
    assert [entry.name for entry in folder.parent.iterdir()] == [parcel.digest]


def test_a_folder_of_that_name_with_other_bytes_is_not_taken(release: Path) -> None:
    parcel = parcel_of(str(release))
    (release / "model.safetensors").write_bytes(b"another model")
    assert find_unpacked(parcel) is None


def test_a_cached_release_that_was_changed_is_written_again(release: Path) -> None:
    parcel = parcel_of(str(release))
    content = parcel.content()
    (unpack_parcel(parcel, content) / "config.json").write_bytes(b"changed")
    release.rename(release.with_name("elsewhere"))
    assert find_unpacked(parcel) is None
    assert (unpack_parcel(parcel, content) / "config.json").read_bytes() == b"config.json"


def test_pickles_do_not_travel(release: Path) -> None:
    names = [name for name, _ in parcel_of(str(release)).files]
    assert names == ["config.json", "model.safetensors"]


def test_bytes_that_changed_on_the_way_are_refused(release: Path) -> None:
    parcel = parcel_of(str(release))
    content = parcel.content() | {"model.safetensors": b"broken"}
    with pytest.raises(RuntimeError, match="arrived with other bytes"):
        unpack_parcel(parcel, content)
    release.rename(release.with_name("elsewhere"))
    assert find_unpacked(parcel) is None


def test_a_release_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing must hold a config.json"):
        parcel_of(str(tmp_path / "nothing"))
