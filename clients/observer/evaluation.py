"""Evaluation: how well the device would serve its user's next exchanges.

The observer's work, not the device's: the exchanges lie in days that the device has not lived yet,
and what it costs is charged to nobody. Three ways to answer: the model with or without a patch,
the model with retrieved exchanges in its context, and the user's label frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clients.adaptation.rules import Retrieve, UserPrior
from clients.policy import AdaptationRule
from clients.state.state import DeviceState
from clients.synthesis.acceptance import rouge_1
from clients.work.facts import Facts
from fleettune.data.exchanges import Exchange
from fleettune.data.labels import absolute_error, predicted, user_prior
from fleettune.data.tokens import Encoder, Example
from fleettune.jobs.jobs import ChoiceJob, Compute, EmbedJob, GenerateJob, ScoreJob
from fleettune.messages.report import Observation
from fleettune.releases.manifest import Manifest

APPROVAL = 0.8
"""A free-text answer is approved if this share of its tokens is the model's own first choice."""


def observe(
    facts: Facts,
    state: DeviceState,
    day: int,
    adaptation: AdaptationRule,
    compute: Compute,
) -> Observation:
    """Returns the quality on the user's exchanges of a day that the device has not lived yet.

    With the release that it holds: one that never came to download any is not evaluated.
    """
    later = facts.population.day(facts.user, day)
    release = state.held
    if not later or release is None:
        return Observation(exchanges=0)
    encoder = facts.encoder(release)
    answers = facts.population.answers
    if isinstance(adaptation, UserPrior):
        index = {answer.response: place for place, answer in enumerate(answers)}
        history = [index[exchange.response] for exchange in state.answered]
        prior = user_prior(history, len(answers), adaptation.smoothing)
        return _labelled(facts, later, [tuple(-value for value in prior)] * len(later))
    neighbours = adaptation.neighbours if isinstance(adaptation, Retrieve) else 0
    contexts = retrieved(state.answered, later, neighbours, encoder, release, compute)
    examples = tuple(
        encoder.example(exchange, context)
        for exchange, context in zip(later, contexts, strict=True)
    )
    if not answers:
        scored = compute.score(
            ScoreJob(release=release.path, patch=state.applied, examples=examples)
        )
        seen = _free_text(examples, scored.nll, scored.hits)
        return replace(seen, rouge1=_written(facts, state, release, later, examples, compute))
    chosen = compute.choose(
        ChoiceJob(
            release=release.path,
            patch=state.applied,
            prompts=tuple(example.tokens[: example.prompt] for example in examples),
            answers=tuple(_answer_tokens(encoder, answer.response) for answer in answers),
        )
    )
    return _labelled(facts, later, chosen.nll)


def retrieved(
    buffer: Sequence[Exchange],
    asked: Sequence[Exchange],
    neighbours: int,
    encoder: Encoder,
    release: Manifest,
    compute: Compute,
) -> list[list[Exchange]]:
    """Returns for every question its nearest buffered exchanges, nearest last."""
    if neighbours == 0 or not buffer:
        return [[] for _ in asked]
    prompts = tuple(_prompt(encoder, exchange) for exchange in (*buffer, *asked))
    vectors = compute.embed(EmbedJob(release=release.path, patch=None, prompts=prompts)).vectors
    held, wanted = vectors[: len(buffer)], vectors[len(buffer) :]
    nearest = np.argsort(-(wanted @ held.T), axis=1, kind="stable")[:, :neighbours]
    return [[buffer[int(place)] for place in reversed(row)] for row in nearest]


def _prompt(encoder: Encoder, exchange: Exchange) -> tuple[int, ...]:
    example = encoder.example(exchange)
    return example.tokens[: example.prompt]


def _answer_tokens(encoder: Encoder, response: str) -> tuple[int, ...]:
    return (*encoder.ids(response), *encoder.ids(encoder.template.after))


def _written(
    facts: Facts,
    state: DeviceState,
    release: Manifest,
    later: Sequence[Exchange],
    examples: Sequence[Example],
    compute: Compute,
) -> float | None:
    """Returns the mean ROUGE-1 of the answers that the model writes; None where it writes none."""
    writing = facts.writing
    count = min(writing.answers, len(later))
    if count == 0:
        return None
    encoder = facts.encoder(release)
    job = GenerateJob(
        release=release.path,
        patch=state.applied,
        prompts=tuple(example.tokens[: example.prompt] for example in examples[:count]),
        new_tokens=writing.new_tokens,
        stop=encoder.stop,
    )
    texts = [encoder.text(tokens) for tokens in compute.generate(job).tokens]
    scores = [rouge_1(text, one.response) for text, one in zip(texts, later[:count], strict=True)]
    return math.fsum(scores) / count


def _free_text(
    examples: Sequence[Example], nll: Sequence[float], hits: Sequence[int]
) -> Observation:
    supervised = [example.supervised for example in examples]
    pairs = list(zip(hits, supervised, strict=True))
    return Observation(
        exchanges=len(examples),
        nll=math.fsum(nll) / sum(supervised),
        exact_match=sum(hit == size for hit, size in pairs) / len(pairs),
        approval=sum(hit >= APPROVAL * size for hit, size in pairs) / len(pairs),
    )


def _labelled(
    facts: Facts, later: Sequence[Exchange], nll_by_answer: Sequence[Sequence[float]]
) -> Observation:
    """Returns label quality: error, confirmed share, and nats within the closed set."""
    answers = facts.population.answers
    place = {answer.response: index for index, answer in enumerate(answers)}
    true = [place[exchange.response] for exchange in later]
    guessed = [predicted(row) for row in nll_by_answer]
    right = [guess == truth for guess, truth in zip(guessed, true, strict=True)]
    nats = [
        row[truth] + math.log(math.fsum(math.exp(-(value)) for value in row))
        for row, truth in zip(nll_by_answer, true, strict=True)
    ]
    errors = [
        absolute_error(answers, guess, truth) for guess, truth in zip(guessed, true, strict=True)
    ]
    return Observation(
        exchanges=len(later),
        nll=math.fsum(nats) / len(later),
        exact_match=sum(right) / len(right),
        approval=sum(right) / len(right),
        mae=math.fsum(errors) / len(errors),
    )
