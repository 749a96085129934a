"""Candidate words with their directions, measured in a release's own sampled answers.

Among several sampled answers to one question, the ones that show most and least of a word make a
pair; the mean of what tells such pairs apart is the word's direction. XPerT asks for answers worded
so instead, which needs a release that can be instructed (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleettune.catalogue.decomposition import Candidate, Floats, sort_by_strength
from fleettune.catalogue.style_vectors import Pair
from fleettune.catalogue.style_words import STYLE_WORDS, StyleWord
from fleettune.data.tokens import Encoder, open_encoder
from fleettune.jobs.jobs import Compute, GenerateJob
from fleettune.releases.manifest import Manifest

Summarise = Callable[[Sequence[Pair]], Floats]
"""Turns pairs into vectors, ``(pairs, d)``."""
SAMPLES = 8
"""Answers drawn per question, at temperature 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """A release that answers questions, unpersonalised.

    Attributes:
        release: The release.
        new_tokens: Longest answer, in tokens.
        compute: Where it runs.
    """

    release: Manifest
    new_tokens: int
    compute: Compute

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer with its template."""
        release = self.release
        return open_encoder(Path(release.path), release.template, release.max_tokens)

    def answer(self, questions: Sequence[str]) -> tuple[str, ...]:
        """Returns one answer per question."""
        return self._texts(self._job(questions, 0.0, ()))

    def sample(self, questions: Sequence[str], samples: int) -> tuple[tuple[str, ...], ...]:
        """Returns drawn answers per question; their streams are keyed by their number."""
        rows = [question for question in questions for _ in range(samples)]
        texts = self._texts(self._job(rows, 1.0, tuple(range(len(rows)))))
        return tuple(texts[start : start + samples] for start in range(0, len(texts), samples))

    def _job(
        self, questions: Sequence[str], temperature: float, seeds: tuple[int, ...]
    ) -> GenerateJob:
        encoder = self.encoder
        return GenerateJob(
            release=self.release.path,
            patch=None,
            prompts=tuple(encoder.request(question) for question in questions),
            new_tokens=self.new_tokens,
            stop=encoder.stop,
            temperature=temperature,
            seeds=seeds,
        )

    def _texts(self, job: GenerateJob) -> tuple[str, ...]:
        return tuple(self.encoder.text(tokens) for tokens in self.compute.generate(job).tokens)


def measure_words(
    questions: Sequence[str], vectors: Floats, answering: Answering, summarise: Summarise
) -> tuple[Candidate, ...]:
    """Returns the words that sampled answers differ in, each with its mean direction.

    Args:
        questions: Answered by the release.
        vectors: The entries', ``(entries, d)``; words along which they differ most come first.
        answering: The release.
        summarise: Turns pairs into vectors.
    """
    sampled = answering.sample(questions, SAMPLES)
    found: list[Candidate] = []
    for word in STYLE_WORDS:
        pairs = [
            pair
            for question, answers in zip(questions, sampled, strict=True)
            if (pair := _contrast(word, question, answers)) is not None
        ]
        if pairs:
            vector = summarise(pairs).mean(axis=0)
            found.append(Candidate(word=word.word, opposite=word.opposite, vector=vector))
    return sort_by_strength(found, vectors)


def _contrast(word: StyleWord, question: str, answers: Sequence[str]) -> Pair | None:
    amounts = [word.measure(answer) for answer in answers]
    low, high = int(np.argmin(amounts)), int(np.argmax(amounts))
    if amounts[low] == amounts[high]:
        return None
    return Pair(question=question, before=answers[low], after=answers[high])
