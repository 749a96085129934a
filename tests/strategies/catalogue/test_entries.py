"""Catalogues: tuned by the cohort engine, found again by content, explained by words found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fleettune.adapters.patch import Factors, Patch
from fleettune.adapters.patch_files import fetch_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.catalogue.comparing import cosine_distances
from fleettune.catalogue.manifest import decode_manifest, encode_manifest, manifest_digest
from fleettune.catalogue.style_vectors import AnswerEmbedding, Pair, StyleQuestion, Summariser
from fleettune.catalogue.style_words import STYLE_WORDS
from fleettune.cohort.execute import Execute, execute
from fleettune.data.styles import Style, draw_plain_questions, draw_style_corpus
from fleettune.data.vocabulary import REQUESTS
from fleettune.jobs.jobs import Compute, Job, Result
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Site
from simulations.experiment.question_lists import list_questions
from strategies.catalogue.cluster_source import (
    ClusterCatalogue,
    cluster_entries,
    kmeans,
    sketches,
)
from strategies.catalogue.entries import Catalogue, Entry, EntryTools, publish
from strategies.catalogue.explain import Explain, explain_entries
from strategies.catalogue.shared_deltas import SharedDeltas
from strategies.catalogue.text_sources import StyleCatalogue, tune_on_corpora

SHAPES = read_shapes(POCKET_V1_FOLDER)
RELEASE = Manifest(
    version=0,
    name="pocket",
    path=str(POCKET_V1_FOLDER),
    digest="weights",
    size_bytes=1,
    shapes=SHAPES,
    template="pocket",
    max_tokens=128,
)
TUNED = StyleCatalogue(layers=2, rank=4, alpha=8.0, steps=30, batch=8, learning_rate=5e-3)
TERSE = Style(expertise=0, informativeness=0, tone=0)
WORDY = Style(expertise=0, informativeness=3, tone=3)
HOW = Explain(residual=0.05)
QUESTIONS = draw_plain_questions(12, seed=1)
COMPUTE = Compute(run=lambda job: execute([job])[0])


GROUPED = ClusterCatalogue(
    clusters=2,
    members=2,
    least=4,
    most=10,
    rank=4,
    alpha=8.0,
    width=4,
    questions=list_questions("everyday"),
    explain=HOW,
    worse=0.0,
)


def tools(store: Path, run: Execute = execute) -> EntryTools:
    shared = SharedDeltas(store=store, seed=0, most=0)
    return EntryTools(store=store, seed=0, run=run, shared=shared)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("catalogue")


@pytest.fixture(scope="module")
def entries(store: Path, one_thread: None) -> tuple[Entry, ...]:
    corpora = {style.name: draw_style_corpus(style, 60, seed=0) for style in (TERSE, WORDY)}
    return tune_on_corpora(corpora, TUNED, RELEASE, tools(store))


@pytest.fixture(scope="module")
def catalogue(entries: tuple[Entry, ...]) -> Catalogue:
    return explain_entries(entries, QUESTIONS, HOW, RELEASE, execute)


def test_a_corpus_is_tuned_once(entries: tuple[Entry, ...], store: Path) -> None:
    def nothing(jobs: Sequence[Job]) -> Sequence[Result]:
        assert not jobs
        return ()

    corpora = {style.name: draw_style_corpus(style, 60, seed=0) for style in (TERSE, WORDY)}
    again = tune_on_corpora(corpora, TUNED, RELEASE, tools(store, nothing))
    assert [e.patch.digest() for e in again] == [e.patch.digest() for e in entries]
    longer = {"x": draw_style_corpus(TERSE, 61, seed=0)}
    with pytest.raises(AssertionError):
        tune_on_corpora(longer, TUNED, RELEASE, tools(store, nothing))


def test_the_words_that_tell_two_styles_apart_are_found(catalogue: Catalogue) -> None:
    manifest = catalogue.manifest
    place = manifest.basis.words.index("lengthy")
    terse, wordy = manifest.coordinates
    assert terse[place] < 0 < wordy[place] - terse[place]


def test_the_word_list_does_not_name_the_generators_styles() -> None:
    named = {word for levels in REQUESTS.values() for word in levels} | set(REQUESTS)
    assert not named & {word for item in STYLE_WORDS for word in (item.word, item.opposite)}


def test_text_in_a_style_lies_nearest_to_the_entry_of_that_style(catalogue: Catalogue) -> None:
    manifest = catalogue.manifest
    for number, style in enumerate((TERSE, WORDY)):
        pairs = [
            Pair(question=e.question, before=manifest.plain[n % 12], after=e.response)
            for n, e in enumerate(draw_style_corpus(style, 24, seed=9))
        ]
        point = manifest.place(manifest.summariser.vectors(pairs, RELEASE, COMPUTE))
        assert int(np.argmin(cosine_distances(point, manifest.compared()))) == number


def test_equal_catalogues_have_equal_manifests(
    catalogue: Catalogue, entries: tuple[Entry, ...], tmp_path: Path
) -> None:
    again = explain_entries(entries, QUESTIONS, HOW, RELEASE, execute)
    assert encode_manifest(again.manifest) == encode_manifest(catalogue.manifest)
    address = publish(catalogue, tmp_path)
    data = (tmp_path / f"{address}.catalogue").read_bytes()
    assert manifest_digest(data) == address
    for listed, entry in zip(decode_manifest(data).entries, entries, strict=True):
        assert fetch_patch(tmp_path, listed.digest).digest() == entry.patch.digest()


@pytest.mark.parametrize(
    ("name", "summariser"), [("embedding", AnswerEmbedding()), ("question", StyleQuestion())]
)
def test_the_release_may_be_the_summariser(
    entries: tuple[Entry, ...], name: str, summariser: Summariser
) -> None:
    questions, how = draw_plain_questions(6, seed=1), Explain(summariser=name, residual=0.05)
    manifest = explain_entries(entries, questions, how, RELEASE, execute).manifest
    assert manifest.summariser == summariser
    assert decode_manifest(encode_manifest(manifest)).summariser == summariser
    assert np.isfinite(manifest.coordinates).all()


def test_a_catalogue_is_about_one_release_and_names_entries_once(
    entries: tuple[Entry, ...],
) -> None:
    questions = ("wake me up",)
    with pytest.raises(ValueError, match="different names"):
        explain_entries([entries[0], entries[0]], questions, HOW, RELEASE, execute)
    later = Patch(release=1, alpha=8.0, factors=entries[0].patch.factors)
    other = Entry(name="later", origin="imported", patch=later)
    with pytest.raises(ValueError, match="must be for release 0, got 1"):
        explain_entries([other], questions, HOW, RELEASE, execute)
    with pytest.raises(ValueError, match="at least a batch of 8"):
        tune_on_corpora({"x": draw_style_corpus(TERSE, 7, seed=0)}, TUNED, RELEASE, tools(Path()))


def shared(seed: int, like: Patch, noise: float) -> Patch:
    rng = np.random.default_rng(seed)
    factors: dict[Site, Factors] = {}
    for site, item in like.factors.items():
        turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
        b = item.b @ turn + noise * rng.normal(size=item.b.shape)
        factors[site] = Factors(a=(turn.T @ item.a).astype(np.float32), b=b.astype(np.float32))
    return Patch(release=0, alpha=like.alpha, factors=factors)


def test_a_sketch_sees_the_update_and_not_its_factors(entries: tuple[Entry, ...]) -> None:
    turned = shared(1, entries[0].patch, 0.0)
    one, other = sketches([entries[0].patch, turned], 4, 0)
    # the same product from other factors, in single precision
    assert np.allclose(one, other, atol=1e-4 * np.abs(one).max())


def test_clusters_of_shared_deltas_are_the_groups_they_came_from(
    entries: tuple[Entry, ...],
) -> None:
    deltas = [shared(n, entries[n % 2].patch, 0.002) for n in range(10)]
    groups = kmeans(sketches(deltas, 4, 0), 2, 0).tolist()
    assert len({groups[n] for n in range(0, 10, 2)}) == 1
    assert len({groups[n] for n in range(1, 10, 2)}) == 1
    assert groups[0] != groups[1]
    found = cluster_entries(deltas, GROUPED, 0)
    assert [entry.origin for entry in found] == ["cluster", "cluster"]
    again = cluster_entries(deltas, GROUPED, 0)
    assert [e.patch.digest() for e in found] == [e.patch.digest() for e in again]
    site = next(iter(entries[0].patch.factors))
    mean = np.mean([deltas[n].dense(site) for n in range(0, 10, 2)], axis=0)
    left = min(float(np.linalg.norm(entry.patch.dense(site) - mean)) for entry in found)
    # the mean of five noisy updates has a little more than rank 4
    assert left < 0.2 * float(np.linalg.norm(mean))


def test_more_clusters_than_deltas_are_refused(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(ValueError, match="at most the 1 shared deltas, got 2"):
        cluster_entries([entries[0].patch], GROUPED, 0)
