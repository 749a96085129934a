"""Summaries: what distinguishes two answers to one question in style, as a vector.

XPerT puts both answers into a language model, asks for the style and takes the hidden state at the
next-token position (docs/methods.md#style-vectors): `StyleQuestion`. A release that is too weak to
be asked embeds the answers instead, and the difference stands for the pair: `AnswerEmbedding`.
`Stylometry` reads no model at all; it counts what studies of authorship count, which leaves out
what an answer is about. Server and device must summarise alike, so a manifest names which it was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from fleettune.catalogue.decomposition import Floats
from fleettune.data.tokens import Encoder, open_encoder
from fleettune.jobs.jobs import Compute, EmbedJob
from fleettune.records import Types
from fleettune.releases.manifest import Manifest

QUESTION = (
    "Which language style is more characteristic of <{after}> than <{before}>? "
    "Reply with only one adjective."
)
"""XPerT's request to the summariser, as its slides give it."""
_FUNCTION_WORDS = """
a all also an and any are as at be been but by can do down even every for from had has have her his
if in into is it its may more must my no not now of on one only or our shall should so some such
than that the their then there things this to up upon was were what when which who will with would
your
"""
FUNCTION_WORDS = tuple(_FUNCTION_WORDS.split())
"""The seventy function words of Mosteller and Wallace (1964): style without topic."""

_LONG_WORD = 8
_ALL_BUT_LAST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question with two answers: of the model as it is, and in somebody's style."""

    question: str
    before: str
    after: str


@runtime_checkable
class Summariser(Protocol):
    """Turns pairs of answers into vectors; a frozen value that travels in a manifest."""

    def reads(self, pairs: Sequence[Pair], release: Manifest) -> tuple[tuple[int, ...], ...]:
        """Returns the tokens of every text that the release reads; nothing where it reads none."""
        ...

    def vectors(self, pairs: Sequence[Pair], release: Manifest, compute: Compute) -> Floats:
        """Returns what distinguishes `after` from `before`, ``(pairs, d)``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleQuestion:
    """The release is asked; its middle layer's state at the next-token position is the vector.

    XPerT takes the last layer's; the middle one is what `EmbedJob` gives, at half the joules.
    """

    def reads(self, pairs: Sequence[Pair], release: Manifest) -> tuple[tuple[int, ...], ...]:
        """Returns one request per pair."""
        encoder = _encoder(release)
        return tuple(
            encoder.request(QUESTION.format(after=pair.after, before=pair.before)) for pair in pairs
        )

    def vectors(self, pairs: Sequence[Pair], release: Manifest, compute: Compute) -> Floats:
        """Returns one state of norm 1 per pair."""
        prompts = self.reads(pairs, release)
        job = EmbedJob(release=release.path, patch=None, prompts=prompts, skip=_ALL_BUT_LAST)
        return compute.embed(job).vectors.astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEmbedding:
    """The release embeds both answers, without their question; the difference is the vector."""

    def reads(self, pairs: Sequence[Pair], release: Manifest) -> tuple[tuple[int, ...], ...]:
        """Returns all answers after, then all before."""
        encoder = _encoder(release)
        return tuple(
            (*encoder.between, *encoder.ids(text), encoder.stop) for text in _answers(pairs)
        )

    def vectors(self, pairs: Sequence[Pair], release: Manifest, compute: Compute) -> Floats:
        """Returns the difference of two vectors of norm 1 per pair."""
        encoder = _encoder(release)
        job = EmbedJob(
            release=release.path,
            patch=None,
            prompts=self.reads(pairs, release),
            skip=len(encoder.between),
        )
        found, half = compute.embed(job).vectors.astype(np.float64), len(pairs)
        return found[:half] - found[half:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stylometry:
    """Counts of function words, marks and word lengths; the difference is the vector."""

    def reads(self, pairs: Sequence[Pair], release: Manifest) -> tuple[tuple[int, ...], ...]:
        """Returns nothing: no model reads."""
        return ()

    def vectors(self, pairs: Sequence[Pair], release: Manifest, compute: Compute) -> Floats:
        """Returns the difference of counts per pair."""
        return np.stack(
            [stylometric_counts(pair.after) - stylometric_counts(pair.before) for pair in pairs]
        )


SUMMARISER_TYPES: Types = {
    kind.__name__: kind for kind in (StyleQuestion, AnswerEmbedding, Stylometry)
}


def stylometric_counts(text: str) -> Floats:
    """Returns a text's stylometric counts, ``(79,)``.

    Words, letters, mean and longest word, long words, capitalised words, the marks ``! , .``, and
    every function word.
    """
    words = re.findall(r"[^\W\d_]+", text)
    lengths = [len(word) for word in words] or [0]
    lower = [word.lower() for word in words]
    about = [
        len(words),
        len(text),
        float(np.mean(lengths)),
        max(lengths),
        sum(length >= _LONG_WORD for length in lengths),
        sum(word[0].isupper() for word in words),
        *(text.count(mark) for mark in "!,."),
    ]
    return np.array([*about, *(lower.count(word) for word in FUNCTION_WORDS)], dtype=np.float64)


def _answers(pairs: Sequence[Pair]) -> list[str]:
    return [*(pair.after for pair in pairs), *(pair.before for pair in pairs)]


def _encoder(release: Manifest) -> Encoder:
    return open_encoder(Path(release.path), release.template, release.max_tokens)
