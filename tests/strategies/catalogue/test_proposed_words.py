"""Proposed words: in the order of a model's own likelihoods, with answers of the release."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleettune.catalogue.decomposition import Floats
from fleettune.catalogue.style_vectors import Pair, StyleQuestion, Stylometry
from fleettune.catalogue.style_words import STYLE_WORDS
from fleettune.catalogue.summariser_models import LocalModel, local_model
from fleettune.cohort.execute import execute
from fleettune.data.tokens import Example
from fleettune.data.vocabulary import REQUESTS
from fleettune.jobs.jobs import ChoiceJob, Compute, Job, Result, ScoreJob
from strategies.catalogue.candidate_words import Answering, Seen
from strategies.catalogue.proposed_words import ADJECTIVES, MOST_PAIRS, Proposed, proposed
from tests.clients.phone import RELEASE
from tests.fleettune.catalogue.summariser_folders import llama

COMPUTE = Compute(run=lambda job: execute([job])[0])


def answering(run: Callable[[Job], Result]) -> Answering:
    return Answering(release=RELEASE, new_tokens=8, compute=Compute(run=run))


ANSWERING = answering(COMPUTE.run)
PAIRS = (
    Pair(question="wake me up", before="ok.", after="sure, Ana!"),
    Pair(question="what is the weather?", before="sunny.", after="it is sunny, dear Ana, enjoy!"),
)
VOCABULARY = (("sunny", "gloomy"), ("blue", "less blue"), ("quiet", "loud"), ("dear", "cheap"))


def alone(word: str, model: LocalModel | None) -> float:
    """Returns a word's nats per token after the style question, scored by itself."""
    encoder = ANSWERING.encoder if model is None else model.encoder
    examples = tuple(
        Example(tokens=(*prompt, *encoder.ids(word)), prompt=len(prompt))
        for prompt in StyleQuestion(model=model).reads(PAIRS, RELEASE)
    )
    folder = RELEASE.path if model is None else str(model.folder)
    found = COMPUTE.score(ScoreJob(release=folder, patch=None, examples=examples))
    return sum(found.nll) / len(PAIRS) / len(encoder.ids(word))


@pytest.mark.parametrize("other", [False, True])
def test_words_are_in_the_order_in_which_the_summariser_finds_them_likely(
    other: bool, tmp_path: Path
) -> None:
    model = local_model(llama(tmp_path / "tiny")) if other else None
    words = [word for word, _ in VOCABULARY]
    order = sorted(words, key=lambda word: alone(word, model))
    assert list(proposed(PAIRS, words, ANSWERING, model)) == order


def seen(pairs: tuple[Pair, ...], vectors: Floats) -> Seen:
    return Seen(
        questions=("wake me up", "what is the weather?"),
        plain=("ok.", "sunny."),
        pairs=pairs,
        vectors=vectors,
        answering=ANSWERING,
        summarise=lambda given: Stylometry().vectors(given, RELEASE, COMPUTE),
    )


def test_the_likeliest_words_are_candidates_in_that_order_whatever_their_strength() -> None:
    order = proposed(PAIRS, [word for word, _ in VOCABULARY], ANSWERING)
    # whatever the entries differ in, words are not sorted by it
    for place in range(2):
        vectors = np.eye(79)[[place, 2 * place]]
        found = Proposed(most=3, vocabulary=VOCABULARY).candidates(seen(PAIRS, vectors))
        assert tuple(one.word for one in found) == order[:3]
        assert all(one.opposite == dict(VOCABULARY)[one.word] for one in found)


def test_the_question_is_asked_about_at_most_a_sample_of_pairs() -> None:
    asked: list[int] = []

    def run(job: Job) -> Result:
        if isinstance(job, ChoiceJob):
            asked.append(len(job.prompts))
        return execute([job])[0]

    given = replace(seen(PAIRS * MOST_PAIRS, np.ones((2, 79))), answering=answering(run))
    how = Proposed(most=2, vocabulary=VOCABULARY)
    one, again = how.candidates(given), how.candidates(given)
    assert [candidate.word for candidate in one] == [candidate.word for candidate in again]
    assert asked == [MOST_PAIRS, MOST_PAIRS]


def test_adjectives_stand_once_have_an_opposite_and_name_no_request_of_the_generator() -> None:
    words = [word for word, _ in ADJECTIVES]
    assert len(set(words)) == len(words)
    assert all(opposite not in ("", word) for word, opposite in ADJECTIVES)
    assert {word.word for word in STYLE_WORDS} < set(words)
    named = {word for levels in REQUESTS.values() for word in levels} | set(REQUESTS)
    assert not named & {word for pair in ADJECTIVES for word in pair}
