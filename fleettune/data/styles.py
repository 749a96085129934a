"""Styles of the built-in world: corpora in one style, and users who are mixed with one.

A style is a level on each of the world's three axes. A corpus of a style has another persona's
facts in every exchange, so that a patch tuned on it learns the wording and nobody's facts. A styled
user keeps its own facts, habits and moods; the wording of its answers is the entry's style with
probability `similarity` and a style drawn anew otherwise (XPerT's similarity,
docs/methods.md#users-of-one-style).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np

from fleettune.data.exchanges import Answer, Exchange, join_days
from fleettune.data.personas import (
    DAYS_PER_WEEK,
    DOMAINS,
    Persona,
    SyntheticData,
    draw_pair,
    draw_persona,
    persona_of,
)
from fleettune.seeds import Purpose, stream

LEVELS = 4
STYLED_DOMAINS: tuple[str, ...] = tuple(domain for domain in DOMAINS if domain != "mood")
"""Domains whose answers have a style; a mood is one word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """One level, 0 to 3, on each axis of wording.

    Raises:
        ValueError: If a level does not exist.
    """

    expertise: int
    informativeness: int
    tone: int

    def __post_init__(self) -> None:
        for axis in ("expertise", "informativeness", "tone"):
            if not 0 <= getattr(self, axis) < LEVELS:
                raise ValueError(
                    f"style.{axis} must be a level from 0 to {LEVELS - 1}, "
                    f"got {getattr(self, axis)}"
                )

    @property
    def name(self) -> str:
        """Short name, for a store and a table."""
        return f"e{self.expertise}i{self.informativeness}t{self.tone}"

    def apply_to(self, persona: Persona) -> Persona:
        """Returns the persona with its answers worded in this style."""
        return replace(
            persona,
            expertise=self.expertise,
            informativeness=self.informativeness,
            tone=self.tone,
        )


def style_grid(expertise: Sequence[int] = range(LEVELS)) -> tuple[Style, ...]:
    """Returns every style with one of these levels of expertise: 64 of all four, 32 of two."""
    axes = itertools.product(expertise, range(LEVELS), range(LEVELS))
    return tuple(Style(expertise=e, informativeness=i, tone=t) for e, i, t in axes)


def draw_style_corpus(style: Style, count: int, seed: int) -> tuple[Exchange, ...]:
    """Returns exchanges in one style, each with the facts of a persona outside the fleet."""
    keys = (style.expertise, style.informativeness, style.tone)
    rng = stream(seed, Purpose.STYLE, 0, *keys)
    return tuple(_outside(style, order, rng) for order in range(count))


def draw_plain_questions(count: int, seed: int) -> tuple[str, ...]:
    """Returns questions of personas outside the fleet, none of which asks for a style by name.

    They are of every domain, as users' are: answers without a style (moods) pull a user towards the
    unpersonalised model, and entries must be pulled alike.
    """
    rng = stream(seed, Purpose.STYLE, 1)
    found: list[str] = []
    while len(found) < count:
        domain = DOMAINS[int(rng.integers(len(DOMAINS)))]
        question, _ = draw_pair(draw_persona(rng), domain, rng)
        if not question.startswith("answer "):
            found.append(question)
    return tuple(found)


def _outside(style: Style, order: int, rng: np.random.Generator) -> Exchange:
    domain = STYLED_DOMAINS[int(rng.integers(len(STYLED_DOMAINS)))]
    question, answer = draw_pair(style.apply_to(draw_persona(rng)), domain, rng)
    return Exchange(question=question, response=answer, day=0, order=order, domain=domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class StyledData:
    """The built-in world with users who are mixed with one style each.

    Attributes:
        world: The world without styles; its users keep their facts, habits and moods.
        similarity: Share of a user's exchanges in the user's style, 0 to 1.
        styles: The styles; user ``u`` has number ``u mod len(styles)``, and the exchanges that are
            not in it are in one of all of them, drawn anew.
        own_facts: Whether a user keeps its facts, habits and moods; without, every exchange has
            another persona's and a style is all that is personal, as in XPerT's data.
        other_expertise: Levels of expertise of the styles that those are in; None: as `styles`. All
            four are what the world without styles has, and with no similarity nothing then tells
            such users from anybody (the null world).
        between: Whether a user has two styles, its own and one drawn for it; `similarity` is then
            the share of both together, half of it each.
    """

    world: SyntheticData
    similarity: float
    styles: tuple[Style, ...] = style_grid((0, 3))
    own_facts: bool = True
    other_expertise: tuple[int, ...] | None = None
    between: bool = False

    def check(self) -> None:
        """Raises ValueError if a value cannot describe such users."""
        self.world.check()
        if self.world.null:
            raise ValueError("data.world.null must be false: styled users are not exchangeable")
        if not 0 <= self.similarity <= 1:
            raise ValueError(f"data.similarity must be a share from 0 to 1, got {self.similarity}")
        if not self.styles:
            raise ValueError("data.styles must hold at least one style, got none")
        if self.other_expertise is not None and not self.other_expertise:
            raise ValueError("data.other_expertise must be null or hold a level, got none")
        if self.between and len(self.styles) < 2:
            raise ValueError(
                f"data.between=true needs data.styles of two or more, got {len(self.styles)}"
            )

    @property
    def others(self) -> tuple[Style, ...]:
        """The styles that exchanges are in which are not in the user's own."""
        return self.styles if self.other_expertise is None else style_grid(self.other_expertise)

    def style_of(self, user: int) -> Style:
        """Returns the style that a user is mixed with."""
        return self.styles[user % len(self.styles)]

    def styles_of(self, user: int) -> tuple[Style, ...]:
        """Returns the styles of a user: one, or two for a user that is between them."""
        count = len(self.styles)
        if not self.between:
            return (self.style_of(user),)
        rng = stream(self.world.seed, Purpose.STYLE, 3, user)
        other = (user + 1 + int(rng.integers(count - 1))) % count
        return (self.style_of(user), self.styles[other])

    def open(self) -> StyledPopulation:
        """Returns the population that this configuration describes."""
        return StyledPopulation(config=self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StyledPopulation:
    """Users mixed with styles; implements `fleettune.data.exchanges.Population`."""

    config: StyledData
    labels: tuple[str, ...] = field(default=(), init=False)
    answers: tuple[Answer, ...] = field(default=(), init=False)

    @property
    def users(self) -> int:
        """Number of users that the fleet may hold."""
        return self.config.world.users

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        """Returns one user's exchanges of one day; day 0 holds the history as well."""
        return join_days(partial(_draw_day, self.config, user), day, self.config.world.history_days)

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        """Returns the same conversations of users outside the fleet as the world without styles."""
        return self.config.world.open().outside(count, seed)


def style_name(population: object, user: int) -> str | None:
    """Returns the name of the one style that a user is mixed with; None without such a style."""
    if not isinstance(population, StyledPopulation) or population.config.between:
        return None
    return population.config.style_of(user).name


@lru_cache(maxsize=4096)
def _draw_day(config: StyledData, user: int, calendar: int) -> tuple[Exchange, ...]:
    world, styles, others = config.world, config.styles_of(user), config.others
    rng = stream(world.seed, Purpose.STYLE, 2, user, calendar)
    persona = persona_of(world, user, calendar // DAYS_PER_WEEK)
    found: list[Exchange] = []
    for index in range(world.exchanges_per_day):
        domain = DOMAINS[int(rng.integers(len(DOMAINS)))]
        other = others[int(rng.integers(len(others)))]
        own = styles[int(rng.integers(len(styles)))] if config.between else styles[0]
        style = own if rng.random() < config.similarity else other
        who = persona if config.own_facts else draw_persona(rng)
        question, answer = draw_pair(style.apply_to(who), domain, rng)
        order = calendar * world.exchanges_per_day + index
        found.append(
            Exchange(question=question, response=answer, day=calendar, order=order, domain=domain)
        )
    return tuple(found)
