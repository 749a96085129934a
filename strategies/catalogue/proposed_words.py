"""Proposals: words in the order in which a model itself names them after the style question.

XPerT takes its candidates from the summariser's own next-word distribution
(docs/methods.md#candidate-words). Over a
whole vocabulary that is mostly no adjectives, so likelihoods are compared within a list of them;
directions come from answers that are asked for in those words
(`strategies.catalogue.candidate_words.Instructed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleettune.catalogue.decomposition import Candidate
from fleettune.catalogue.style_vectors import Pair, StyleQuestion
from fleettune.catalogue.style_words import STYLE_WORDS
from fleettune.catalogue.summariser_models import LocalModel
from fleettune.jobs.jobs import ChoiceJob
from fleettune.seeds import Purpose, stream
from strategies.catalogue.candidate_words import Answering, Instructed, Seen

_PAIRS = """
formal informal, polite rude, friendly unfriendly, cheerful gloomy, serious playful,
confident hesitant, elaborate concise, wordy laconic, detailed sketchy, informative uninformative,
technical elementary, scholarly colloquial, poetic prosaic, emotional neutral, enthusiastic bored,
gentle harsh, clear vague, lively dull, affectionate distant, eager reluctant, modest boastful,
calm excited, humble arrogant, persuasive unpersuasive, honest evasive, modern archaic
"""


_WITHOUT_OPPOSITE = "sassy sarcastic ironic dramatic conversational blunt"


def _both_ways(word: str, opposite: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (word, opposite), (opposite, word)


_listed = [(word.word, word.opposite) for word in STYLE_WORDS]


_more = [tuple(pair.split()) for pair in _PAIRS.split(",")]


ADJECTIVES: tuple[tuple[str, str], ...] = (
    *(side for word, opposite in (*_listed, *_more) for side in _both_ways(word, opposite)),
    *((word, f"less {word}") for word in _WITHOUT_OPPOSITE.split()),
)
"""Every word with what little of it is called, in either direction where that has a word."""


MOST_PAIRS = 32
"""Pairs that the style question is asked about: where entries have more, a sample of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """Words that a model proposes for the entries' answers, tried in its order.

    The question is asked about at most `MOST_PAIRS` of all entries' pairs, drawn by a key that is
    the same in every run.

    Attributes:
        most: How many words are taken, the likeliest ones.
        model: What proposes; None: the release. The release alone answers in these words.
        vocabulary: Words that may be proposed, with their opposites.
    """

    most: int = 12
    model: LocalModel | None = None
    vocabulary: tuple[tuple[str, str], ...] = ADJECTIVES

    def candidates(self, seen: Seen) -> tuple[Candidate, ...]:
        """Returns the likeliest words with their mean directions, the likeliest first."""
        opposites = dict(self.vocabulary)
        words = proposed(_sample(seen.pairs), tuple(opposites), seen.answering, self.model)
        chosen = tuple((word, opposites[word]) for word in words[: self.most])
        return Instructed(words=chosen).in_order(seen)


def proposed(
    pairs: Sequence[Pair],
    vocabulary: Sequence[str],
    answering: Answering,
    model: LocalModel | None = None,
) -> tuple[str, ...]:
    """Returns words by a model's own next-word distribution, most likely first.

    Args:
        pairs: What the style question is asked about; likelihoods are averaged over them.
        vocabulary: Words that may be proposed; nats are per token, as words differ in length.
        answering: The release.
        model: The summariser; None: the release.
    """
    encoder = answering.encoder if model is None else model.encoder
    answers = tuple(tuple(encoder.ids(word)) for word in vocabulary)
    job = ChoiceJob(
        release=answering.release.path if model is None else str(model.folder),
        patch=None,
        prompts=StyleQuestion(model=model).reads(pairs, answering.release),
        answers=answers,
    )
    nll = np.array(answering.compute.choose(job).nll).mean(axis=0)
    per_token = nll / np.array([len(answer) for answer in answers])
    order: list[int] = np.argsort(per_token, kind="stable").tolist()
    return tuple(vocabulary[place] for place in order)


def _sample(pairs: Sequence[Pair]) -> list[Pair]:
    if len(pairs) <= MOST_PAIRS:
        return list(pairs)
    rng = stream(0, Purpose.CATALOGUE, 9)
    return [pairs[place] for place in sorted(rng.permutation(len(pairs))[:MOST_PAIRS].tolist())]
