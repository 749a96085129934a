"""Another local model as a summariser: as if it were the release, named, verified, checked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleettune.backbone.causal_lm import POCKET_FOLDER, BackboneSource
from fleettune.catalogue.manifest import decode_manifest, encode_manifest
from fleettune.catalogue.style_vectors import (
    AnswerEmbedding,
    Pair,
    SentenceEmbedding,
    StyleQuestion,
    Stylometry,
    Summariser,
)
from fleettune.catalogue.summariser_models import LocalModel, MiniLm, check_local_model, local_model
from fleettune.cohort.execute import execute
from fleettune.cost.work import forward_work
from fleettune.jobs.jobs import Compute
from fleettune.records import to_record
from fleettune.releases.manifest import file_digest
from tests.clients.phone import RELEASE
from tests.fleettune.catalogue.summariser_folders import LLAMA, bert, llama
from tests.fleettune.catalogue.test_manifest import manifest

COMPUTE = Compute(run=lambda job: execute([job])[0])
PAIRS = [
    Pair(question="wake me up", before="ok.", after="sure, Ana! i set an alarm for you."),
    Pair(question="play music", before="playing music.", after="ok"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> BackboneSource:
    return llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(source: BackboneSource) -> LocalModel:
    return local_model(source)


@pytest.mark.parametrize("kind", [AnswerEmbedding, StyleQuestion])
def test_another_models_vectors_are_those_it_gives_as_the_release(
    kind: type[AnswerEmbedding] | type[StyleQuestion], model: LocalModel
) -> None:
    as_release = replace(RELEASE, path=model.path, shapes=model.shapes)
    found = kind(model=model).vectors(PAIRS, RELEASE, COMPUTE)
    assert found.shape == (2, LLAMA["hidden_size"])
    assert np.array_equal(found, kind().vectors(PAIRS, as_release, COMPUTE))
    assert kind(model=model).reads(PAIRS, RELEASE) == kind().reads(PAIRS, as_release)


def test_a_model_is_told_by_name_digest_and_size(model: LocalModel, source: BackboneSource) -> None:
    file = Path(source.path) / "model.safetensors"
    assert (model.name, model.path) == ("tiny", source.path)
    assert (model.digest, model.size_bytes) == (file_digest(file), file.stat().st_size)


def test_a_manifest_names_the_summarisers_model_and_comes_back(model: LocalModel) -> None:
    for summariser in (
        AnswerEmbedding(model=model),
        StyleQuestion(model=model),
        SentenceEmbedding(),
    ):
        data = encode_manifest(replace(manifest(), summariser=summariser))
        assert decode_manifest(data).summariser == summariser
        read_with = summariser.model
        assert read_with is not None
        assert read_with.digest.encode() in data
        assert read_with.name.encode() in data


@pytest.mark.parametrize("summariser", [AnswerEmbedding(), StyleQuestion(), Stylometry()])
def test_a_summariser_without_a_model_of_its_own_is_written_as_its_name_alone(
    summariser: Summariser,
) -> None:
    assert to_record(summariser) == {"type": type(summariser).__name__}
    assert summariser.model is None


def test_other_weights_in_the_folder_are_refused(model: LocalModel) -> None:
    other = replace(model, digest="0" * 64)
    with pytest.raises(ValueError, match=f"tiny in .* digest {'0' * 64}, got {model.digest}"):
        AnswerEmbedding(model=other).vectors(PAIRS, RELEASE, COMPUTE)


def test_passes_are_those_of_the_lower_half_at_the_models_own_shapes(model: LocalModel) -> None:
    # 32 wide, 4 heads of 8, 2 of keys, 48 within: q and o, k and v, three of the feed-forward part
    weights = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    tokens, squares = 3 + 4, 9 + 16
    found = model.work([3, 4])
    assert found.flop == 2 * tokens * weights + 2 * 2 * 2 * 32 * squares
    half = replace(model.shapes, layers=2)
    stored = model.size_bytes / model.shapes.parameters
    # single precision, and a few hundred bytes of names before it
    assert stored == pytest.approx(4, rel=0.05)
    assert found == forward_work(half, [3, 4], 0, {}, stored)
    assert model.work([]).flop == 0


def test_minilms_passes_at_its_own_shapes() -> None:
    weights = 6 * 12 * 384**2
    assert MiniLm().work([10]).flop == 2 * 10 * weights + 6 * 4 * 384 * 100


def without(folder: Path, *names: str) -> BackboneSource:
    """The built-in model copied, without some of its files."""
    shutil.copytree(POCKET_FOLDER, folder)
    for name in names:
        (folder / name).unlink()
    return BackboneSource(name="copy", path=str(folder), template="pocket", max_tokens=128)


def test_a_model_that_cannot_summarise_is_told_before_anything_runs(tmp_path: Path) -> None:
    good = without(tmp_path / "good")
    assert check_local_model(good) == tmp_path / "good"
    encoder = bert(tmp_path / "bert")
    torn = without(tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"torn")
    wrong = {
        "must be a safetensors file": torn,
        "path must be a folder": replace(good, path=str(tmp_path / "nowhere")),
        "holds no tokenizer.json": without(tmp_path / "mute", "tokenizer.json"),
        "exactly one safetensors file, got 0": without(tmp_path / "bare", "model.safetensors"),
        "must have Llama-like layers .* lack": replace(good, path=str(encoder)),
        "max_tokens must be >= 8 tokens, got 7": replace(good, max_tokens=7),
        "template must be one of": replace(good, template="nope"),
    }
    for told, source in wrong.items():
        with pytest.raises(ValueError, match=rf"catalogue\.explain\.summariser_model: .*{told}"):
            check_local_model(source)
