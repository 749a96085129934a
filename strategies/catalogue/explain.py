"""Explanation of entries: base and entries answer questions, and words tell how the answers differ.

All entries are explained alike, whatever their source: the summariser turns every pair of answers
into a vector, vectors are decomposed into words (docs/methods.md#decomposition), and what words
leave of them is kept for comparing only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fleettune.catalogue.comparing import unnamed_directions, whitening_matrix
from fleettune.catalogue.decomposition import Basis, Floats, decompose
from fleettune.catalogue.manifest import CatalogueManifest, Listed
from fleettune.catalogue.similar_questions import most_similar_others
from fleettune.catalogue.style_vectors import (
    AnswerEmbedding,
    Pair,
    StyleQuestion,
    Stylometry,
    Summariser,
)
from fleettune.cohort.execute import Execute
from fleettune.data.tokens import open_encoder
from fleettune.jobs.jobs import Compute
from fleettune.releases.manifest import Manifest
from strategies.catalogue.candidate_words import Answering, Summarise, measure_words
from strategies.catalogue.entries import Catalogue, Entry, answer_questions

SUMMARISERS: Mapping[str, Callable[[], Summariser]] = {
    "embedding": AnswerEmbedding,
    "question": StyleQuestion,
    "stylometry": Stylometry,
}
GATE = 0.95
"""Largest |cos| of a word with an accepted one."""
_LEAST = (("questions", 1), ("new_tokens", 1), ("residual", 0), ("beside", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """How a catalogue's entries are explained.

    Attributes:
        questions: How many the base and every entry answer; XPerT takes 50.
        new_tokens: Longest of those answers.
        summariser: ``embedding``, ``question`` or ``stylometry``
            (`fleettune.catalogue.style_vectors`).
        residual: Share of every vector's norm below which no more words are taken.
        beside: Most directions without a word that entries are also compared along.
        shrink: Weight of the identity in the covariance that coordinates are whitened by; None
            compares them as they are, as XPerT does.

    Raises:
        ValueError: If a value breaks its rule.
    """

    questions: int = 100
    new_tokens: int = 48
    summariser: str = "stylometry"
    residual: float = 0.02
    beside: int = 8
    shrink: float | None = 0.3

    def __post_init__(self) -> None:
        if self.summariser == "minilm":
            raise ValueError(
                "catalogue.explain.summariser=minilm was removed, because it found the entry less "
                "often than stylometry (docs/LOG.md): take one of "
                f"{tuple(SUMMARISERS)}"
            )
        if self.summariser not in SUMMARISERS:
            raise ValueError(
                f"catalogue.explain.summariser must be one of {tuple(SUMMARISERS)}, "
                f"got {self.summariser!r}"
            )
        for name, least in _LEAST:
            if not getattr(self, name) >= least:
                raise ValueError(
                    f"catalogue.explain.{name} must be >= {least}, got {getattr(self, name)}"
                )
        if self.shrink is not None and not 0 < self.shrink <= 1:
            raise ValueError(
                f"catalogue.explain.shrink must be null or > 0 and <= 1, got {self.shrink}"
            )


def explain_entries(
    entries: Sequence[Entry],
    questions: tuple[str, ...],
    how: Explain,
    release: Manifest,
    execute: Execute,
) -> Catalogue:
    """Returns the entries with a manifest that places them among words.

    Args:
        entries: The entries, tuned for the release.
        questions: Put to the base and to every entry.
        how: How they are explained.
        release: The release.
        execute: Runs jobs.

    Raises:
        ValueError: If there is no entry or no question, two entries share a name, or one is for
            another release.
        WordlessError: If the entries answer as the base does, so that no word tells them from it.
    """
    _check(entries, questions, release)
    compute = Compute(run=lambda job: execute([job])[0])
    summariser = SUMMARISERS[how.summariser]()
    answering = Answering(release=release, new_tokens=how.new_tokens, compute=compute)
    plain = answering.answer(questions)
    pairs = _pairs(entries, questions, plain, answering, execute)
    found = summariser.vectors(pairs, release, compute)
    spread = found.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    every = (found / scale).reshape(len(entries), len(questions), -1)
    vectors = every.mean(axis=1)

    def summarise(given: Sequence[Pair]) -> Floats:
        return summariser.vectors(given, release, compute) / scale

    candidates = measure_words(questions, vectors, answering, summarise)
    basis = decompose(candidates, vectors, gate=GATE, residual=how.residual)
    more = unnamed_directions(basis, vectors, how.beside)
    likes = _beside_likes(pairs, questions, plain, summarise) if how.shrink is not None else every
    manifest = CatalogueManifest(
        release=release.digest,
        version=release.version,
        summariser=summariser,
        basis=basis,
        scale=scale,
        entries=tuple(map(_listed, entries)),
        coordinates=basis.coordinates(vectors),
        plain=plain,
        beside=more,
        coordinates_beside=vectors @ more.T,
        whitening=_whitening(basis, more, every, how.shrink),
        questions=questions,
        whitening_of_likes=_whitening(basis, more, likes, how.shrink),
    )
    return Catalogue(manifest=manifest, entries=tuple(entries))


def _pairs(
    entries: Sequence[Entry],
    questions: tuple[str, ...],
    plain: Sequence[str],
    answering: Answering,
    execute: Execute,
) -> list[Pair]:
    """Returns every entry's answers beside the base's, entry by entry."""
    release = answering.release
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    return [
        Pair(question=question, before=before, after=encoder.text(tokens))
        for own in answer_questions(entries, questions, answering.new_tokens, release, execute)
        for question, before, tokens in zip(questions, plain, own, strict=True)
    ]


def _beside_likes(
    pairs: Sequence[Pair], questions: tuple[str, ...], plain: Sequence[str], summarise: Summarise
) -> Floats:
    """Returns the vectors of the same answers beside plain ones to like questions.

    That is how a device sees its user's that decodes nothing: ``(entries, questions, d)``.
    """
    likes = most_similar_others(questions)
    count = len(likes[0])
    beside_likes = [
        replace(pair, before=plain[place])
        for number, pair in enumerate(pairs)
        for place in likes[number % len(likes)]
    ]
    found = summarise(beside_likes)
    return found.reshape(-1, len(likes), count, found.shape[-1]).mean(axis=2)


def _whitening(basis: Basis, more: Floats, every: Floats, shrink: float | None) -> Floats:
    if shrink is None:
        return np.zeros((0, 0))
    return whitening_matrix(
        np.concatenate([basis.coordinates(every), every @ more.T], axis=2), shrink
    )


def _listed(entry: Entry) -> Listed:
    return Listed(
        name=entry.name,
        origin=entry.origin,
        digest=entry.patch.digest(),
        size_bytes=entry.patch.size_bytes,
    )


def _check(entries: Sequence[Entry], questions: tuple[str, ...], release: Manifest) -> None:
    if not questions:
        raise ValueError("explanation.questions must hold at least one question, got none")
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a catalogue must hold entries of different names, got {names}")
    for entry in entries:
        if entry.patch.release != release.version:
            raise ValueError(
                f"entry {entry.name!r} must be for release {release.version}, got "
                f"{entry.patch.release}; reuse or retune it first"
            )


def check_counts(source: object, *names: str) -> None:
    """Raises ValueError if one of a source's counts is < 1."""
    for name in names:
        if getattr(source, name) < 1:
            raise ValueError(f"catalogue.{name} must be >= 1, got {getattr(source, name)}")


def check_worse(worse: float) -> None:
    """Raises ValueError if what a release may make worse is < 0."""
    if worse < 0:
        raise ValueError(f"catalogue.worse must be >= 0 nats per token, got {worse}")
