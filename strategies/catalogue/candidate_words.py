"""Candidate words with their directions, found on the server by asking a release, never given.

`Measured` serves a model that is too weak to be instructed: among its own sampled answers to one
question, those that show most and least of a word make a pair. `Instructed` asks for an answer
worded so (XPerT's way). Words that a model proposes itself are in
`strategies.catalogue.proposed_words`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fleettune.catalogue.decomposition import Candidate, Floats, by_strength
from fleettune.catalogue.style_vectors import Pair
from fleettune.catalogue.style_words import STYLE_WORDS, StyleWord
from fleettune.data.tokens import Encoder, open_encoder
from fleettune.jobs.jobs import Compute, GenerateJob
from fleettune.releases.manifest import Manifest

Summarise = Callable[[Sequence[Pair]], Floats]
LISTED = tuple((word.word, word.opposite) for word in STYLE_WORDS)
"""The words of the list with their opposites."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What words are found by.

    Attributes:
        questions: Put to the base and to every entry.
        plain: What the base answers.
        pairs: Every entry's answers beside those, entry by entry.
        vectors: The entries', ``(entries, d)``.
        answering: The release.
        summarise: Turns pairs into vectors, ``(pairs, d)``.
    """

    questions: tuple[str, ...]
    plain: tuple[str, ...]
    pairs: tuple[Pair, ...]
    vectors: Floats
    answering: Answering
    summarise: Summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Words by measures of text, contrasted over a release's own sampled answers.

    Attributes:
        words: The list.
        samples: Answers drawn per question, at temperature 1.
    """

    words: tuple[StyleWord, ...] = field(default=STYLE_WORDS)
    samples: int = 8

    def __post_init__(self) -> None:
        if self.samples < 2 or not self.words:
            raise ValueError(
                "explanation needs words and >= 2 samples per question to contrast, got "
                f"{len(self.words)} words and {self.samples} samples"
            )

    def candidates(self, seen: Seen) -> tuple[Candidate, ...]:
        """Returns the words that answers differ in, each with its mean direction."""
        sampled = seen.answering.sampled(seen.questions, self.samples)
        found: list[Candidate] = []
        for word in self.words:
            pairs = [
                pair
                for question, answers in zip(seen.questions, sampled, strict=True)
                if (pair := _contrast(word, question, answers)) is not None
            ]
            if pairs:
                vector = seen.summarise(pairs).mean(axis=0)
                found.append(Candidate(word=word.word, opposite=word.opposite, vector=vector))
        return by_strength(found, seen.vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructed:
    """Words as instructions: ``answer WORD: question`` against the plain answer.

    Attributes:
        words: Words with their opposites.
        instruction: How an answer is asked for, with ``{word}`` and ``{question}``.
    """

    words: tuple[tuple[str, str], ...] = LISTED
    instruction: str = "answer {word}: {question}"

    def candidates(self, seen: Seen) -> tuple[Candidate, ...]:
        """Returns every word with its mean direction."""
        return by_strength(self.in_order(seen), seen.vectors)

    def in_order(self, seen: Seen) -> tuple[Candidate, ...]:
        """Returns the same in the order of the words."""
        found: list[Candidate] = []
        for word, opposite in self.words:
            asked = [self.instruction.format(word=word, question=one) for one in seen.questions]
            pairs = [
                Pair(question=question, before=before, after=after)
                for question, before, after in zip(
                    seen.questions, seen.plain, seen.answering.greedy(asked), strict=True
                )
            ]
            vector = seen.summarise(pairs).mean(axis=0)
            found.append(Candidate(word=word, opposite=opposite, vector=vector))
        return tuple(found)


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

    def greedy(self, questions: Sequence[str]) -> tuple[str, ...]:
        """Returns one answer per question."""
        return self._texts(self._job(questions, 0.0, ()))

    def sampled(self, questions: Sequence[str], samples: int) -> tuple[tuple[str, ...], ...]:
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


def _contrast(word: StyleWord, question: str, answers: Sequence[str]) -> Pair | None:
    amounts = [word.measure(answer) for answer in answers]
    low, high = int(np.argmin(amounts)), int(np.argmax(amounts))
    if amounts[low] == amounts[high]:
        return None
    return Pair(question=question, before=answers[low], after=answers[high])
