"""Synthesis: training pairs that a device makes from those it keeps.

They live only while the device tunes, and as long they count against its quota.
`SelfParaphrase` follows Qin et al. (DAC 2024, docs/methods.md#self-paraphrase): the device's own
model says its exchanges in other words, and a band on ROUGE-1 says which of them are used. A model
that cannot do it has few of its pairs accepted, and the joules are spent all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from clients.synthesis.acceptance import Band, Draft, accept_drafts
from clients.synthesis.rewording import reword
from fleettune.adapters.patch import Patch
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import Encoder
from fleettune.jobs.jobs import Compute, GenerateJob

QUESTION, PAIR = "question", "pair"
Draw = Callable[[int, int], np.random.Generator]
"""Random stream of a candidate, by the order of its exchange and its own number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Everything from which a rule makes pairs.

    Attributes:
        buffer: Exchanges held.
        answers: The closed set of answers; empty where answers are free text.
        room_bytes: Bytes that the pairs may take.
        release: Folder of the release that the device tunes.
        encoder: Its tokenizer with its template.
        patch: The device's present patch, None without one.
        draw: Where randomness comes from.
    """

    buffer: tuple[Exchange, ...]
    answers: frozenset[str]
    room_bytes: int
    release: str
    encoder: Encoder
    patch: Patch | None
    draw: Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """What was made of a buffer.

    Attributes:
        pairs: Pairs to train on besides the buffer.
        candidates: How many were made, these included.
        writings: Tokens read and written for every text that the model wrote.
    """

    pairs: tuple[Exchange, ...] = ()
    candidates: int = 0
    writings: tuple[tuple[int, int], ...] = ()


@runtime_checkable
class Synthesis(Protocol):
    """A rule that multiplies the buffer before tuning."""

    def expand(self, source: Source, compute: Compute) -> Expansion:
        """Returns the pairs made, at most `source.room_bytes` of them; pure but for `compute`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSynthesis:
    """Tunes on what the buffer holds."""

    def expand(self, source: Source, compute: Compute) -> Expansion:
        """Returns nothing."""
        return Expansion()


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateRewrite:
    """Rewords questions by rule (`clients.synthesis.rewording`), without a model; answers are kept.

    What it computes is string editing, which is billed nothing.

    Attributes:
        per_exchange: Candidates per exchange.
        rouge_low: Least ROUGE-1 F1 of old and new question.
        rouge_high: Largest.
    """

    per_exchange: int
    rouge_low: float
    rouge_high: float

    def __post_init__(self) -> None:
        _check_count(self.per_exchange)
        Band(low=self.rouge_low, high=self.rouge_high)

    def expand(self, source: Source, compute: Compute) -> Expansion:
        """Returns the accepted rewordings."""
        band = Band(low=self.rouge_low, high=self.rouge_high)
        drafts = [
            Draft(
                original=exchange,
                question=reword(exchange.question, source.draw(exchange.order, number)),
                response=exchange.response,
            )
            for number in range(self.per_exchange)
            for exchange in source.buffer
        ]
        pairs = accept_drafts(drafts, source.buffer, source.room_bytes, band, source.answers)
        return Expansion(pairs=pairs, candidates=len(drafts))


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfParaphrase:
    """Lets the device's own model say its exchanges in other words.

    An exchange gets no candidate if it has nothing to reword, or if its request leaves no room for
    `new_tokens` within the model's longest example.

    Attributes:
        per_exchange: Candidates per exchange.
        rewrite: ``question`` keeps the answer that the user preferred; ``pair`` gives the model
            question and answer as one text, and takes both from what it writes.
        temperature: Of the draw; 0 is greedy.
        new_tokens: Most tokens of a candidate.
        rouge_low: Least ROUGE-1 F1 of what was rewritten, before and after.
        rouge_high: Largest.
        instruction: What stands before the text; None for the request that models of the release's
            template know. With a bracket in it, the new text must come in brackets.
    """

    per_exchange: int
    rewrite: str
    temperature: float
    new_tokens: int
    rouge_low: float
    rouge_high: float
    instruction: str | None = None

    def __post_init__(self) -> None:
        _check_count(self.per_exchange)
        Band(low=self.rouge_low, high=self.rouge_high)
        if self.rewrite not in (QUESTION, PAIR):
            raise ValueError(f"rewrite must be {QUESTION} or {PAIR}, got {self.rewrite!r}")
        if not 0 <= self.temperature <= 10:
            raise ValueError(f"temperature must be from 0 to 10, got {self.temperature}")
        if self.per_exchange > 1 and self.temperature == 0:
            raise ValueError(
                "temperature must be > 0 where per_exchange is > 1: greedy candidates are all alike"
            )
        if self.new_tokens < 1:
            raise ValueError(f"new_tokens must be >= 1 token, got {self.new_tokens}")

    def expand(self, source: Source, compute: Compute) -> Expansion:
        """Returns the accepted ones of the model's texts."""
        encoder = source.encoder
        asked = encoder.template.reword if self.instruction is None else self.instruction
        requests = [(one, encoder.request(asked + self._block(one))) for one in source.buffer]
        longest = encoder.max_tokens - self.new_tokens
        fitting = [
            (one, request)
            for one, request in requests
            if len(request) <= longest and self._block(one).strip()
        ]
        if not fitting or source.room_bytes < 1:
            return Expansion()
        originals = [one for one, _ in fitting] * self.per_exchange
        prompts = [request for _, request in fitting] * self.per_exchange
        job = GenerateJob(
            release=source.release,
            patch=source.patch,
            prompts=tuple(prompts),
            new_tokens=self.new_tokens,
            stop=encoder.stop,
            temperature=self.temperature,
            seeds=self._seeds([one.order for one, _ in fitting], source.draw),
        )
        written = compute.generate(job).tokens
        drafts = [
            self._draft(one, encoder.text(tokens), "[" in asked, len(tokens) < self.new_tokens)
            for one, tokens in zip(originals, written, strict=True)
        ]
        parsed = [draft for draft in drafts if draft is not None]
        band = Band(low=self.rouge_low, high=self.rouge_high)
        return Expansion(
            pairs=accept_drafts(parsed, source.buffer, source.room_bytes, band, source.answers),
            candidates=len(drafts),
            writings=tuple(
                # the stop token is decoded as well, where there was one
                (len(prompt), min(len(tokens) + 1, self.new_tokens))
                for prompt, tokens in zip(prompts, written, strict=True)
            ),
        )

    def _block(self, exchange: Exchange) -> str:
        if self.rewrite == QUESTION:
            return exchange.question
        return f"Question: {exchange.question} Answer: {exchange.response}"

    def _seeds(self, orders: Sequence[int], draw: Draw) -> tuple[int, ...]:
        if self.temperature == 0:
            return ()
        numbers = range(self.per_exchange)
        return tuple(int(draw(order, n).integers(2**63)) for n in numbers for order in orders)

    def _draft(self, original: Exchange, text: str, held: bool, ended: bool) -> Draft | None:
        """Returns the pair that a text holds, None if it holds none or was cut short."""
        if held:
            found = re.search(r"\[(.*)\]", text, re.DOTALL)
            text, ended = (found.group(1), True) if found else ("", False)
        if not ended:
            return None
        if self.rewrite == QUESTION:
            return Draft(original=original, question=text.strip(), response=original.response)
        parts = re.fullmatch(r"\s*question:(.+?)answer:(.+)", text, re.DOTALL | re.IGNORECASE)
        if parts is None:
            return None
        question, response = (part.strip() for part in parts.groups())
        return Draft(original=original, question=question, response=response)


def _check_count(per_exchange: int) -> None:
    if per_exchange < 1:
        raise ValueError(f"per_exchange must be >= 1 candidate, got {per_exchange}")
