"""Evaluation: how well the device would serve its user's next exchanges.

The observer's work, not the device's: the exchanges lie in days that the device has not lived yet,
and what it costs is billed to nobody. Four ways to answer: the model with or without a patch,
the model with retrieved exchanges in its context, the user's label frequencies, and a copy of what
the user said before. Of free text it also says how many answers are new: no answer that the device
had ever read by that night is the same, whether or not it still holds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clients.adaptation.protocol import Copier, traits_of
from clients.night.order import NightOrder
from clients.state.state import DeviceState
from clients.synthesis.acceptance import rouge_1
from fleettune.data.exchanges import Answer, Exchange
from fleettune.data.labels import absolute_error, likeliest_answer
from fleettune.data.tokens import Encoder, Example
from fleettune.jobs.jobs import ChoiceJob, EmbedJob, GenerateJob, ScoreJob
from fleettune.messages.report import Observation
from fleettune.releases.manifest import Manifest

APPROVAL = 0.8
"""A free-text answer is approved if this share of its tokens is the model's own first choice."""


def observe(order: NightOrder, state: DeviceState, day: int) -> Observation:
    """Returns the quality on the user's exchanges of a day that the device has not lived yet.

    With the release that it holds: one that never came to download any is not evaluated.
    """
    traits, answers = traits_of(order.policy.adaptation), order.population.answers
    asking = (order.facts.user + traits.swapped) % order.population.users
    later = order.population.day(asking, day)
    release = state.held
    if not later or release is None:
        return Observation(exchanges=0)
    if traits.label_prior is not None:
        index = {answer.response: place for place, answer in enumerate(answers)}
        history = [index[exchange.response] for exchange in state.answered]
        prior = traits.label_prior(history, len(answers))
        return _labelled(answers, later, [tuple(-value for value in prior)] * len(later))
    encoder = order.facts.encoder(release)
    contexts = _retrieve(order, state, release, later, traits.neighbours)
    examples = tuple(
        encoder.example(exchange, context)
        for exchange, context in zip(later, contexts, strict=True)
    )
    if not answers:
        new = _are_new(order, later)
        if traits.copier is not None:
            held = contexts if traits.neighbours else [state.answered] * len(later)
            return _copied(encoder, traits.copier, list(zip(later, held, strict=True)), new)
        job = ScoreJob(release=release.path, patch=state.applied, examples=examples)
        scored = order.compute.score(job)
        seen = _free_text(examples, scored.hits, new)
        nll = math.fsum(scored.nll) / sum(example.supervised for example in examples)
        written = _written(order, state, release, later, examples)
        return replace(seen, nll=nll, rouge1=written)
    chosen = order.compute.choose(
        ChoiceJob(
            release=release.path,
            patch=state.applied,
            prompts=tuple(example.tokens[: example.prompt] for example in examples),
            answers=tuple(_answer_tokens(encoder, answer.response) for answer in answers),
        )
    )
    return _labelled(answers, later, chosen.nll)


def _retrieve(
    order: NightOrder,
    state: DeviceState,
    release: Manifest,
    later: Sequence[Exchange],
    neighbours: int,
) -> list[list[Exchange]]:
    """Returns for every question its nearest answered exchanges held, nearest last."""
    held = state.answered
    if neighbours == 0 or not held:
        return [[] for _ in later]
    encoder = order.facts.encoder(release)
    examples = [encoder.example(exchange) for exchange in (*held, *later)]
    prompts = tuple(example.tokens[: example.prompt] for example in examples)
    job = EmbedJob(release=release.path, patch=None, prompts=prompts)
    vectors = order.compute.embed(job).vectors
    near = vectors[len(held) :] @ vectors[: len(held)].T
    nearest = np.argsort(-near, axis=1, kind="stable")[:, :neighbours]
    return [[held[int(place)] for place in reversed(row)] for row in nearest]


def _answer_tokens(encoder: Encoder, response: str) -> tuple[int, ...]:
    return (*encoder.ids(response), *encoder.after)


def _written(
    order: NightOrder,
    state: DeviceState,
    release: Manifest,
    later: Sequence[Exchange],
    examples: Sequence[Example],
) -> float | None:
    """Returns the mean ROUGE-1 of the answers that the model writes; None where it writes none."""
    count = min(order.writing.answers, len(later))
    if count == 0:
        return None
    encoder = order.facts.encoder(release)
    job = GenerateJob(
        release=release.path,
        patch=state.applied,
        prompts=tuple(example.tokens[: example.prompt] for example in examples[:count]),
        new_tokens=order.writing.new_tokens,
        stop=encoder.stop,
    )
    texts = [encoder.text(tokens) for tokens in order.compute.generate(job).tokens]
    scores = [rouge_1(text, one.response) for text, one in zip(texts, later[:count], strict=True)]
    return math.fsum(scores) / count


def _are_new(order: NightOrder, later: Sequence[Exchange]) -> list[bool]:
    """Returns for each exchange whether its answer never stood in what the device read so far."""
    read = {
        exchange.response
        for day in range(order.round + 1)
        for exchange in order.population.day(order.facts.user, day)
    }
    return [exchange.response not in read for exchange in later]


def _copied(
    encoder: Encoder,
    copier: Copier,
    asked: Sequence[tuple[Exchange, Sequence[Exchange]]],
    new: Sequence[bool],
) -> Observation:
    """Returns the quality of copied answers, token by token; no model gave them a likelihood."""
    examples = [encoder.example(exchange) for exchange, _ in asked]
    hits: list[int] = []
    for (exchange, held), example in zip(asked, examples, strict=True):
        copy = replace(exchange, response=copier(held, exchange.question))
        copied, true = (one.tokens[one.prompt :] for one in (encoder.example(copy), example))
        same = sum(a == b for a, b in zip(copied, true, strict=False))
        hits.append(same if len(copied) == len(true) else min(same, len(true) - 1))
    return _free_text(examples, hits, new)


def _free_text(
    examples: Sequence[Example], hits: Sequence[int], new: Sequence[bool]
) -> Observation:
    pairs = [(hit, example.supervised) for hit, example in zip(hits, examples, strict=True)]
    right = [hit == size for hit, size in pairs]
    unseen = [match for match, is_new in zip(right, new, strict=True) if is_new]
    return Observation(
        exchanges=len(examples),
        exact_match=sum(right) / len(right),
        approval=sum(hit >= APPROVAL * size for hit, size in pairs) / len(pairs),
        unseen_exchanges=len(unseen),
        exact_match_unseen=sum(unseen) / len(unseen) if unseen else None,
    )


def _labelled(
    answers: Sequence[Answer],
    later: Sequence[Exchange],
    nll_by_answer: Sequence[Sequence[float]],
) -> Observation:
    """Returns label quality: error, confirmed share, and nats within the closed set."""
    place = {answer.response: index for index, answer in enumerate(answers)}
    true = [place[exchange.response] for exchange in later]
    guessed = [likeliest_answer(row) for row in nll_by_answer]
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
