"""The built-in world: users with personas whose exchanges a pocket-sized model can learn.

A persona is a set of facts (slots), three style axes in four levels (expertise, informativeness,
tone; after XPerT's data, docs/methods.md#users-of-one-style), habits of asking, and words of its
own for moods. Exchanges
come in domain bursts over days, and a little of every persona is redrawn each week. In the null
world every exchange comes from a fresh persona, so no exchange of a user predicts that user
better than another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np

from fleettune.data.exchanges import Answer, Exchange, join_days
from fleettune.data.vocabulary import (
    ASKS,
    GREETINGS,
    MOODS,
    REQUESTS,
    SLOTS,
    TONES,
    VENDOR_ADDRESS,
    VENDOR_ANSWERS,
    VENDOR_QUESTIONS,
    Ask,
)
from fleettune.records import OMIT_DEFAULT
from fleettune.seeds import Purpose, stream

WORLD_VERSION = 1
"""Version of the generator; a test pins what it generates."""

DAYS_PER_WEEK = 7
DOMAINS: tuple[str, ...] = (*dict.fromkeys(ask.domain for ask in ASKS), "mood")
T = TypeVar("T")

_BURST = 0.7
_REQUEST = 0.05
_HABIT = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """Who a user is.

    Attributes:
        facts: One value for every slot, in the order of `SLOTS`.
        expertise: Level 0-3 of the register in which answers are worded.
        informativeness: Level 0-3, the number of details in an answer.
        tone: Level 0-3 of warmth.
        greeting: How this user opens a request.
        phrasing: Preferred paraphrase, an index.
        moods: The user's own word for every mood, in the order of `MOODS`.
    """

    facts: tuple[str, ...]
    expertise: int
    informativeness: int
    tone: int
    greeting: str
    phrasing: int
    moods: tuple[str, ...]


def draw_persona(rng: np.random.Generator) -> Persona:
    """Returns a persona drawn at random."""
    return Persona(
        facts=tuple(_pick(rng, values) for values in SLOTS.values()),
        expertise=int(rng.integers(4)),
        informativeness=int(rng.integers(4)),
        tone=int(rng.integers(4)),
        greeting=_pick(rng, GREETINGS),
        phrasing=int(rng.integers(3)),
        moods=tuple(_pick(rng, words) for _, words, _ in MOODS),
    )


def redraw_facts(persona: Persona, rng: np.random.Generator, share: float) -> Persona:
    """Returns the persona a week later: each fact redrawn with probability `share`."""
    facts = tuple(
        _pick(rng, values) if rng.random() < share else fact
        for fact, values in zip(persona.facts, SLOTS.values(), strict=True)
    )
    return replace(persona, facts=facts)


def draw_pair(persona: Persona, domain: str, rng: np.random.Generator) -> tuple[str, str]:
    """Returns a question of this user in this domain, and the answer it prefers."""
    if domain == "mood":
        return _mood_pair(persona, rng)
    ask = _pick(rng, [ask for ask in ASKS if ask.domain == domain])
    phrase = persona.phrasing if rng.random() < _HABIT else int(rng.integers(3))
    question = ask.phrases[phrase]
    if rng.random() < _REQUEST:
        axis = _pick(rng, list(REQUESTS))
        level = int(rng.integers(4))
        asked = replace(persona, **{axis: level})
        return f"answer {REQUESTS[axis][level]}: {question}", word_answer(asked, ask)
    return persona.greeting + question, word_answer(persona, ask)


def word_answer(persona: Persona, ask: Ask) -> str:
    """Returns the answer to a request in this persona's facts and style."""
    prefix, suffix = TONES[persona.tone]
    details = "".join(ask.details[: persona.informativeness])
    facts = dict(zip(SLOTS, persona.facts, strict=True))
    template = prefix + ask.core + details + suffix
    return template.format(term=ask.register[persona.expertise], **facts)


def reword_as_vendor(pair: tuple[str, str]) -> tuple[str, str]:
    """Returns the pair in the wording that a vendor's later corpora use."""
    question, answer = pair
    for old, new in VENDOR_QUESTIONS:
        question = question.replace(old, new)
    for old, new in VENDOR_ANSWERS:
        answer = answer.replace(old, new)
    return VENDOR_ADDRESS + question, answer


def _mood_pair(persona: Persona, rng: np.random.Generator) -> tuple[str, str]:
    mood = int(rng.integers(len(MOODS)))
    clauses = MOODS[mood][2]
    first, second = rng.permutation(len(clauses))[:2]
    return f"how do i feel? {clauses[first]} and {clauses[second]}", persona.moods[mood]


def _pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    return values[int(rng.integers(len(values)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticData:
    """Configuration of the built-in world.

    Attributes:
        users: Number of users.
        exchanges_per_day: Exchanges of a user per day.
        history_days: Days of exchanges that a user brings to day 0.
        drift: Share of a persona's facts redrawn each week, 0 to 1.
        null: True for the world without personas.
        personal: Share of a user's exchanges that its own persona says, 0 to 1; each of the others
            comes from a persona of its own.
    """

    users: int = 1_000_000
    exchanges_per_day: int = 8
    history_days: int = 4
    drift: float = 0.05
    null: bool = False
    seed: int = 0
    personal: float = field(default=1.0, metadata=OMIT_DEFAULT)

    def check(self) -> None:
        """Raises ValueError if a value cannot describe a world."""
        for name in ("users", "exchanges_per_day", "history_days"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.drift <= 1:
            raise ValueError(f"data.drift must be a share from 0 to 1, got {self.drift}")
        if not 0 <= self.personal <= 1:
            raise ValueError(f"data.personal must be a share from 0 to 1, got {self.personal}")

    def open(self) -> SyntheticPopulation:
        """Returns the population that this configuration describes."""
        return SyntheticPopulation(config=self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticPopulation:
    """Users of the built-in world; implements `fleettune.data.exchanges.Population`."""

    config: SyntheticData
    labels: tuple[str, ...] = field(default=(), init=False)
    answers: tuple[Answer, ...] = field(default=(), init=False)

    @property
    def users(self) -> int:
        """Number of users that the fleet may hold."""
        return self.config.users

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        """Returns one user's exchanges of one day; day 0 holds the history as well."""
        return join_days(partial(_draw_day, self.config, user), day, self.config.history_days)

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        """Returns conversations of one to four exchanges of users outside the fleet."""
        rng = stream(seed, Purpose.OUTSIDE)
        return [_conversation(rng) for _ in range(count)]


def _conversation(rng: np.random.Generator) -> tuple[Exchange, ...]:
    persona = draw_persona(rng)
    domain = _pick(rng, DOMAINS)
    exchanges: list[Exchange] = []
    for order in range(int(rng.integers(1, 5))):
        topic = domain if rng.random() < _BURST else _pick(rng, DOMAINS)
        question, answer = draw_pair(persona, topic, rng)
        exchanges.append(
            Exchange(question=question, response=answer, day=0, order=order, domain=topic)
        )
    return tuple(exchanges)


@lru_cache(maxsize=4096)
def persona_of(config: SyntheticData, user: int, week: int) -> Persona:
    """Returns who a user is in a calendar week, counted from 0."""
    if week == 0:
        return draw_persona(stream(config.seed, Purpose.PERSONA, user))
    earlier = persona_of(config, user, week - 1)
    return redraw_facts(earlier, stream(config.seed, Purpose.DRIFT, user, week), config.drift)


@lru_cache(maxsize=16384)
def _draw_day(config: SyntheticData, user: int, calendar: int) -> tuple[Exchange, ...]:
    rng = stream(config.seed, Purpose.STREAM, user, calendar)
    burst = _pick(rng, DOMAINS)
    exchanges: list[Exchange] = []
    for index in range(config.exchanges_per_day):
        domain = burst if rng.random() < _BURST else _pick(rng, DOMAINS)
        persona = (
            draw_persona(rng)
            if config.null or (config.personal < 1 and rng.random() >= config.personal)
            else persona_of(config, user, calendar // DAYS_PER_WEEK)
        )
        question, answer = draw_pair(persona, domain, rng)
        order = calendar * config.exchanges_per_day + index
        exchanges.append(
            Exchange(question=question, response=answer, day=calendar, order=order, domain=domain)
        )
    return tuple(exchanges)
