"""The cataloguer: what is offered with a release, and which entries are still valid then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.releases.manifest import Manifest
from strategies.catalogue.cataloguer import Cataloguer
from strategies.catalogue.explain import Explain
from strategies.catalogue.sources import Uncatalogued
from strategies.catalogue.text_sources import StyleCatalogue
from tests.clients.phone import RELEASE as POCKET

HOW = StyleCatalogue(
    expertise=(0,),
    entries=2,
    corpus=16,
    steps=4,
    batch=4,
    layers=1,
    rank=2,
    alpha=4.0,
    explain=Explain(questions=4),
)
RELEASE = replace(POCKET, digest="weights", size_bytes=1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_no_catalogue_no_offer(tmp_path: Path) -> None:
    assert Cataloguer(how=Uncatalogued(), store=tmp_path).offer([RELEASE]) is None


def test_a_catalogue_is_kilobytes_and_equal_when_made_again(tmp_path: Path) -> None:
    made = Cataloguer(how=HOW, store=tmp_path, seed=3)
    offer = made.offer([RELEASE])
    again = Cataloguer(how=HOW, store=tmp_path, seed=3).offer([RELEASE])
    assert offer is not None
    assert offer == again
    assert len(offer.data) < 40_000
    digests = tuple(entry.digest for entry in offer.manifest.entries)
    assert [patch.digest() for patch in offer.patches(digests)] == list(digests)
    assert [row["entry"] for row in made.rows()] == [style.name for style in HOW.styles]
    assert all(row["reads"] for row in made.rows())


@pytest.mark.parametrize("kind", ["tuned", "explained", "catalogue"])
@pytest.mark.parametrize("damage", ["empty", "flip"])
def test_a_damaged_key_or_manifest_of_the_store_is_made_anew(
    tmp_path: Path, kind: str, damage: str
) -> None:
    offer = Cataloguer(how=HOW, store=tmp_path, seed=3).offer([RELEASE])
    file = min(tmp_path.rglob(f"*.{kind}"))
    whole = file.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 2]) + whole[middle + 1 :]
    file.write_bytes(b"" if damage == "empty" else changed)
    assert Cataloguer(how=HOW, store=tmp_path, seed=3).offer([RELEASE]) == offer
    assert file.read_bytes() == whole


def test_entries_are_reused_where_a_release_leaves_them_and_retuned_elsewhere(
    tmp_path: Path,
) -> None:
    same = replace(RELEASE, version=1, digest="same")
    other = shaken(tmp_path / "other")
    made = Cataloguer(how=HOW, store=tmp_path / "store", seed=3)
    offer = made.offer([RELEASE, same, other])
    rows = {
        version: [row["reused"] for row in made.rows() if row["release"] == version]
        for version in range(3)
    }
    assert (rows[0], rows[1]) == ([False, False], [True, True])
    # noise in all matrices: at least one of the two patches no longer fits
    assert not all(rows[2])
    assert offer is not None
    assert offer.manifest.release == other.digest
    digests = tuple(entry.digest for entry in offer.manifest.entries)
    assert {patch.release for patch in offer.patches(digests)} == {2}


def shaken(folder: Path) -> Manifest:
    """Returns a release whose matrices have noise in them, so that old patches do not fit."""
    folder.mkdir()
    for file in POCKET_V1_FOLDER.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    rng = np.random.default_rng(0)
    arrays = load_file(POCKET_V1_FOLDER / "model.safetensors")
    shaken = {
        name: (one + 0.15 * one.std() * rng.normal(size=one.shape)).astype(one.dtype)
        for name, one in arrays.items()
    }
    save_file(shaken, folder / "model.safetensors", metadata={"format": "pt"})
    return replace(RELEASE, version=2, digest="other", path=str(folder))


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("entries", 1), ("worse", -0.1), ("learning_rate", 0.0)],
)
def test_wrong_values_are_told(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"catalogue.{field}"):
        replace(HOW, **{field: value})
