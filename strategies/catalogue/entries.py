"""Catalogue: personalised patches of the server, explained in words with numbers.

Source: docs/methods.md#entries-and-their-explanation.

Entries come from corpora (`strategies.catalogue.entry_tuning`), from clusters of the fleet's shared
deltas (`strategies.catalogue.clusters`) or as any other patch. All are explained alike: base and
personalised model answer the same questions, and what the summariser makes of the pairs is
decomposed into words. Patches and manifest are kept by content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from fleettune.adapters.patch import Patch
from fleettune.adapters.patch_files import keep_patch
from fleettune.catalogue.decomposition import Basis, Candidate, Floats, decompose
from fleettune.catalogue.decomposition_released import released_basis
from fleettune.catalogue.manifest import (
    CatalogueManifest,
    Listed,
    encode_manifest,
    manifest_digest,
)
from fleettune.catalogue.similar_questions import likest_others
from fleettune.catalogue.style_vectors import Pair, Stylometry, Summariser
from fleettune.catalogue.whitening import beside, whitening
from fleettune.cohort.execute import Execute
from fleettune.data.tokens import open_encoder
from fleettune.jobs.jobs import (
    Compute,
    GenerateJob,
    GenerateResult,
)
from fleettune.releases.manifest import Manifest
from strategies.catalogue.candidate_words import Answering, Measured, Seen, Summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One personalised patch.

    Attributes:
        name: Short name.
        origin: As `fleettune.catalogue.manifest.Listed`.
        patch: The patch.
    """

    name: str
    origin: str
    patch: Patch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """Entries with the manifest that explains them, in the same order."""

    manifest: CatalogueManifest
    entries: tuple[Entry, ...]


class WordSource(Protocol):
    """Where candidate words and their directions come from."""

    def candidates(self, seen: Seen) -> tuple[Candidate, ...]:
        """Returns words with directions, in the order in which they are tried."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining:
    """How entries are explained.

    Attributes:
        questions: Put to the base and to every personalised model; XPerT takes 50.
        summariser: Turns pairs of answers into vectors.
        words: Where candidate words come from.
        new_tokens: Longest answer, in tokens.
        released: Whether words are accepted and taken as XPerT's released code does it, which knows
            neither of the next two.
        gate: Largest |cos| of a word with an accepted one.
        residual: Share of every vector's norm below which no more words are taken.
        beside: Most directions without a word that entries are also compared along.
        shrink: Weight of the identity in the covariance that coordinates are whitened by; None
            compares them as they are, as XPerT does.
    """

    questions: tuple[str, ...]
    summariser: Summariser = field(default_factory=Stylometry)
    words: WordSource = field(default_factory=Measured)
    new_tokens: int = 48
    released: bool = False
    gate: float = 0.95
    residual: float = 0.05
    beside: int = 8
    shrink: float | None = 0.3

    def __post_init__(self) -> None:
        if not self.questions:
            raise ValueError("explanation.questions must hold at least one question, got none")
        if self.new_tokens < 1:
            raise ValueError(f"explanation.new_tokens must be >= 1, got {self.new_tokens}")
        if self.beside < 0:
            raise ValueError(f"explanation.beside must be >= 0 directions, got {self.beside}")
        if self.released:
            check_plain_words(self.beside, self.shrink, "explanation")


def check_plain_words(beside: int, shrink: float | None, where: str) -> None:
    """Raises ValueError if what takes words to be orthogonal is asked for where they are not."""
    if beside or shrink is not None:
        raise ValueError(
            f"{where}.beside and {where}.shrink take words to be orthogonal, which released ones "
            f"are not; they must be 0 and null, got {beside} and {shrink}"
        )


def explained(
    entries: Sequence[Entry], how: Explaining, release: Manifest, execute: Execute
) -> Catalogue:
    """Returns the entries with a manifest that places them among words.

    Raises:
        ValueError: If there is no entry, two share a name, or one is for another release.
        WordlessError: If the entries answer as the base does, so that no word tells them from it.
    """
    _check(entries, release)
    compute = Compute(run=lambda job: execute([job])[0])
    answering = Answering(release=release, new_tokens=how.new_tokens, compute=compute)
    plain = answering.greedy(how.questions)
    pairs = _pairs(entries, how, plain, release, execute)
    found = how.summariser.vectors(pairs, release, compute)
    spread = found.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    every = (found / scale).reshape(len(entries), len(how.questions), -1)
    vectors = every.mean(axis=1)

    def summarise(given: Sequence[Pair]) -> Floats:
        return how.summariser.vectors(given, release, compute) / scale

    seen = Seen(
        questions=how.questions,
        plain=plain,
        pairs=tuple(pairs),
        vectors=vectors,
        answering=answering,
        summarise=summarise,
    )
    basis = _basis(how.words.candidates(seen), vectors, how)
    more = beside(basis, vectors, how.beside)
    manifest = CatalogueManifest(
        release=release.digest,
        version=release.version,
        summariser=how.summariser,
        words_from=type(how.words).__name__.lower(),
        basis=basis,
        scale=scale,
        entries=tuple(map(_listed, entries)),
        coordinates=basis.coordinates(vectors),
        plain=plain,
        beside=more,
        coordinates_beside=vectors @ more.T,
        whitening=_whitening(basis, more, every, how),
        questions=how.questions,
        whitening_of_likes=_whitening(basis, more, _like(pairs, plain, how, summarise), how),
    )
    return Catalogue(manifest=manifest, entries=tuple(entries))


def publish(catalogue: Catalogue, store: Path) -> str:
    """Writes all patches and the manifest into a store and returns the manifest's digest."""
    for entry in catalogue.entries:
        keep_patch(store, entry.patch)
    data = encode_manifest(catalogue.manifest)
    digest = manifest_digest(data)
    (store / f"{digest}.catalogue").write_bytes(data)
    return digest


def answers(
    entries: Sequence[Entry],
    questions: Sequence[str],
    new_tokens: int,
    release: Manifest,
    execute: Execute,
) -> list[tuple[tuple[int, ...], ...]]:
    """Returns the tokens that every entry answers to all questions, decoded greedily."""
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    prompts = tuple(encoder.request(question) for question in questions)
    jobs = [
        GenerateJob(
            release=release.path,
            patch=entry.patch,
            prompts=prompts,
            new_tokens=new_tokens,
            stop=encoder.stop,
        )
        for entry in entries
    ]
    return [cast(GenerateResult, result).tokens for result in execute(jobs)]


def _pairs(
    entries: Sequence[Entry],
    how: Explaining,
    plain: Sequence[str],
    release: Manifest,
    execute: Execute,
) -> list[Pair]:
    """Returns every entry's answers beside the base's, entry by entry."""
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    return [
        Pair(question=question, before=before, after=encoder.text(tokens))
        for own in answers(entries, how.questions, how.new_tokens, release, execute)
        for question, before, tokens in zip(how.questions, plain, own, strict=True)
    ]


def _basis(candidates: Sequence[Candidate], vectors: Floats, how: Explaining) -> Basis:
    if how.released:
        return released_basis(candidates, vectors)
    return decompose(candidates, vectors, gate=how.gate, residual=how.residual)


def _like(
    pairs: Sequence[Pair], plain: Sequence[str], how: Explaining, summarise: Summarise
) -> Floats:
    """Returns the vectors of the same answers beside plain ones to like questions.

    That is how a device sees its user's that decodes nothing: ``(entries, questions, d)``.
    """
    if how.shrink is None:
        return np.zeros((0, 0, 0))
    likes = likest_others(how.questions)
    count = len(likes[0])
    beside_likes = [
        replace(pair, before=plain[place])
        for number, pair in enumerate(pairs)
        for place in likes[number % len(likes)]
    ]
    found = summarise(beside_likes)
    return found.reshape(-1, len(likes), count, found.shape[-1]).mean(axis=2)


def _whitening(basis: Basis, more: Floats, every: Floats, how: Explaining) -> Floats:
    if how.shrink is None:
        return np.zeros((0, 0))
    return whitening(np.concatenate([basis.coordinates(every), every @ more.T], axis=2), how.shrink)


def _listed(entry: Entry) -> Listed:
    return Listed(
        name=entry.name,
        origin=entry.origin,
        digest=entry.patch.digest(),
        size_bytes=entry.patch.size_bytes,
    )


def _check(entries: Sequence[Entry], release: Manifest) -> None:
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a catalogue must hold entries of different names, got {names}")
    for entry in entries:
        if entry.patch.release != release.version:
            raise ValueError(
                f"entry {entry.name!r} must be for release {release.version}, got "
                f"{entry.patch.release}; reuse or retune it first"
            )
