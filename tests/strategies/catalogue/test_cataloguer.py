"""Cataloguing: what is offered with a release, and which entries outlive it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fleettune.backbone.causal_lm import POCKET_FOLDER, BackboneSource
from fleettune.catalogue.style_vectors import AnswerEmbedding
from fleettune.records import from_record, to_record
from fleettune.releases.manifest import Manifest
from strategies.catalogue.cataloguer import Cataloguer
from strategies.catalogue.explain import Explain
from strategies.catalogue.sources import Uncatalogued
from strategies.catalogue.text_sources import StyleCatalogue
from tests.clients.phone import RELEASE as POCKET
from tests.fleettune.catalogue.summariser_folders import llama

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


def test_a_catalogue_may_be_read_with_another_model_wherever_that_lies(
    tmp_path: Path,
) -> None:
    source = llama(tmp_path / "tiny")
    explain = replace(HOW.explain, summariser="embedding", summariser_model=source)
    how = replace(HOW, explain=explain)
    offer = Cataloguer(how=how, store=tmp_path, seed=3).offer([RELEASE])
    assert offer is not None
    found = offer.manifest.summariser
    assert isinstance(found, AnswerEmbedding)
    assert found.model is not None
    assert found.model.path == source.path
    assert offer == Cataloguer(how=how, store=tmp_path, seed=3).offer([RELEASE])
    moved = replace(source, path=str((tmp_path / "tiny").rename(tmp_path / "other")))
    elsewhere = replace(HOW, explain=replace(explain, summariser_model=moved))
    other = Cataloguer(how=elsewhere, store=tmp_path, seed=3)
    assert (again := other.offer([RELEASE])) is not None
    assert np.array_equal(again.manifest.coordinates, offer.manifest.coordinates)


def test_a_catalogues_summariser_travels_in_a_plan_and_none_is_not_written() -> None:
    source = BackboneSource(name="tiny", path="tiny", template="pocket", max_tokens=128)
    how = Explain(summariser="question", summariser_model=source)
    types = {kind.__name__: kind for kind in (Explain, BackboneSource)}
    assert from_record(to_record(how), types, "explain") == how
    assert "summariser_model" not in to_record(Explain())
    with pytest.raises(ValueError, match=r"summariser_model must be null unless .* 'minilm'"):
        replace(how, summariser="minilm")


@pytest.mark.parametrize("words", ["measured", "instructed", "proposed"])
def test_words_come_from_where_the_plan_says_and_the_manifest_tells(
    words: str, tmp_path: Path
) -> None:
    explain = replace(HOW.explain, words=words, most_words=5, summariser="embedding")
    made = Cataloguer(how=replace(HOW, explain=explain), store=tmp_path, seed=3)
    offer = made.offer([RELEASE])
    assert offer is not None
    assert offer.manifest.words_from == words
    assert np.isfinite(offer.manifest.coordinates).all()
    assert all(row["reads"] for row in made.rows())
    again = Cataloguer(how=replace(HOW, explain=explain), store=tmp_path, seed=3)
    assert again.offer([RELEASE]) == offer
    if words == "proposed":
        assert len(offer.manifest.basis.words) <= 5


def test_a_catalogue_may_be_decomposed_as_released(tmp_path: Path) -> None:
    plain = Explain(questions=4, beside=0, shrink=None)
    ours = Cataloguer(how=replace(HOW, explain=plain), store=tmp_path, seed=3).offer([RELEASE])
    how = replace(HOW, explain=replace(plain, decomposition="released"))
    offer = Cataloguer(how=how, store=tmp_path, seed=3).offer([RELEASE])
    assert ours is not None
    assert offer is not None
    basis = offer.manifest.basis
    # written in single precision
    assert np.allclose(np.linalg.norm(basis.vectors, axis=1), 1.0, atol=1e-6)
    # the first word of both is the strongest, and one direction alone is orthogonal to none
    assert basis.words[0] == ours.manifest.basis.words[0]
    assert np.allclose(offer.manifest.coordinates[:, 0], ours.manifest.coordinates[:, 0])
    assert len(basis.words) > 1
    products = basis.vectors @ basis.vectors.T
    assert np.abs(products - np.eye(len(products))).max() > 0.1


def test_what_words_come_from_is_written_only_where_it_is_not_the_default() -> None:
    record = to_record(Explain())
    assert not {"words", "most_words", "decomposition"} & set(record)
    how = Explain(words="proposed", most_words=3, decomposition="released", beside=0, shrink=None)
    assert from_record(to_record(how), {"Explain": Explain}, "explain") == how


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
    for file in POCKET_FOLDER.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    rng = np.random.default_rng(0)
    arrays = load_file(POCKET_FOLDER / "model.safetensors")
    shaken = {
        name: (one + 0.15 * one.std() * rng.normal(size=one.shape)).astype(one.dtype)
        for name, one in arrays.items()
    }
    save_file(shaken, folder / "model.safetensors", metadata={"format": "pt"})
    return replace(RELEASE, version=2, digest="other", path=str(folder))


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("entries", 1), ("worse", -0.1)],
)
def test_wrong_values_are_told(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"catalogue.{field}"):
        replace(HOW, **{field: value})
