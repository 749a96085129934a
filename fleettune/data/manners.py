"""The world of manners: users whose answers are new every time and worded in a manner of their own.

No stored answer is the answer to a later request, and a model that learned its user's manner can
write it (`fleettune.data.composing`). Users differ in how much they write, how far their manner is
from the vendor's, what they write about and how fast they change. A release may be trained on
people who lean to some options of some habits, so that it breaks the patches of some users only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np

from fleettune.data.composing import (
    FACTS,
    FEELINGS,
    HABITS,
    PAIRS,
    TOPICS,
    Manner,
    compose_answer,
    draw_content,
    word_fact,
    word_mood,
    word_otherwise,
    word_request,
)
from fleettune.data.exchanges import Answer, Exchange, Population, join_days
from fleettune.data.tokens import POCKET
from fleettune.seeds import Purpose, stream

MANNERS_VERSION = 2
"""Version of the generator; a test pins what it generates."""

LEAST_A_DAY, MOST_A_DAY = 0.5, 12.0
"""Bounds on the mean number of a user's exchanges per day."""
CAP_A_DAY = 24
"""Most exchanges on one day; what is drawn above is not said."""
DAYS_OF_WEEK = 7
T = TypeVar("T")
_REPEATED = ("mood", "fact")
_OUTSIDE_TURNS = 6
_FIRM = 3.0
"""How alike users are in strength: the sum of the parameters of its beta distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What of a user does not change from day to day.

    Attributes:
        strength: Share of habits in which the user departs from the vendor's manner, 0 to 1.
        exchanges_per_day: Mean number of exchanges of a day.
        history_days: Days of exchanges that the user brings to day 0.
        drift: Share of habits drawn anew each week, 0 to 1.
        topics: Share of every topic in what the user composes, in the order of `TOPICS`.
    """

    strength: float
    exchanges_per_day: float
    history_days: int
    drift: float
    topics: tuple[float, ...]


def draw_manner(rng: np.random.Generator, strength: float) -> Manner:
    """Returns a manner: each habit departs from the vendor's with probability `strength`."""
    return {name: _draw_option(rng, name, strength) for name in HABITS}


def redraw_manner(
    manner: Manner, rng: np.random.Generator, strength: float, share: float
) -> Manner:
    """Returns the manner a week later: each habit drawn anew with probability `share`."""
    return {
        name: _draw_option(rng, name, strength) if rng.random() < share else option
        for name, option in manner.items()
    }


def _draw_option(rng: np.random.Generator, habit: str, strength: float) -> int:
    own = 1 + int(rng.integers(len(HABITS[habit]) - 1))
    return own if rng.random() < strength else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MannersData:
    """Configuration of the world of manners.

    Attributes:
        users: Number of users.
        exchanges_per_day: Median over users of the mean number of a day; log-normal between
            `LEAST_A_DAY` and `MOST_A_DAY`.
        spread: Standard deviation of the logarithm of that; 0: all users alike.
        history_days: Most days of exchanges that a user brings to day 0; each user has a number of
            its own from 0 to that. With `even_history` all have this one.
        strength: Mean share of habits in which a user departs from the vendor's manner, 0 to 1.
        even: True if all users have the same strength, drift, history and topics.
        drift: Mean share of habits that a user draws anew each week, 0 to 0.5.
        repeats: Share of exchanges that ask for a mood or a fact, whose answers may come again.
        consistency: Share of a user's exchanges in its own manner, 0 to 1; each of the others is in
            a manner of its own. With 0 nothing personal can be learned (the null world).
    """

    users: int = 1_000_000
    exchanges_per_day: float = 3.0
    spread: float = 0.9
    history_days: int = 20
    strength: float = 0.75
    even: bool = False
    drift: float = 0.02
    repeats: float = 0.15
    consistency: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Raises ValueError if a value cannot describe a world."""
        if self.users < 1:
            raise ValueError(f"data.users must be >= 1, got {self.users}")
        if not LEAST_A_DAY <= self.exchanges_per_day <= MOST_A_DAY:
            raise ValueError(
                f"data.exchanges_per_day must be from {LEAST_A_DAY} to {MOST_A_DAY}, "
                f"got {self.exchanges_per_day}"
            )
        if self.spread < 0:
            raise ValueError(f"data.spread must be >= 0, got {self.spread}")
        if self.history_days < 0:
            raise ValueError(f"data.history_days must be >= 0 days, got {self.history_days}")
        bounds = {"strength": 1.0, "drift": 0.5, "repeats": 0.25, "consistency": 1.0}
        for name, most in bounds.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(
                    f"data.{name} must be a share from 0 to {most:g}, got {getattr(self, name)}"
                )

    def open(self) -> ManneredPopulation:
        """Returns the population that this configuration describes."""
        return ManneredPopulation(config=self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManneredPopulation:
    """Users of the world of manners; implements `fleettune.data.exchanges.Population`.

    Attributes:
        config: The world.
        leans: Option that people outside the fleet have of some habits, whoever they are.
        about: Topics that people outside the fleet write about; empty: all.
    """

    config: MannersData
    leans: Mapping[str, int] = field(default_factory=dict[str, int])
    about: tuple[str, ...] = ()
    labels: tuple[str, ...] = field(default=(), init=False)
    answers: tuple[Answer, ...] = field(default=(), init=False)

    @property
    def users(self) -> int:
        """Number of users that the fleet may hold."""
        return self.config.users

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        """Returns one user's exchanges of one day; day 0 holds the history as well."""
        history = habits_of(self.config, user).history_days
        return join_days(partial(_draw_day, self.config, user), day, history)

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        """Returns conversations of one to six exchanges of users outside the fleet."""
        rng = stream(seed, Purpose.OUTSIDE)
        return [self._conversation(rng) for _ in range(count)]

    def _conversation(self, rng: np.random.Generator) -> tuple[Exchange, ...]:
        manner = {**draw_manner(rng, _draw_strength(rng, self.config)), **self.leans}
        found: list[Exchange] = []
        for order in range(int(rng.integers(1, _OUTSIDE_TURNS + 1))):
            topic = _pick(rng, self.about or TOPICS)
            if rng.random() < self.config.repeats:
                topic = _pick(rng, _REPEATED)
            pair = int(rng.integers(PAIRS))
            found.append(_exchange(topic, pair, manner, rng, (0, order)))
        return tuple(found)


def draw_rewording(rng: np.random.Generator) -> Exchange:
    """Returns a request of somebody outside the fleet, and its other wording as the answer."""
    content = draw_content(_pick(rng, TOPICS), int(rng.integers(PAIRS)), rng)
    return Exchange(
        question=POCKET.reword + word_request(content),
        response=word_otherwise(content),
        day=0,
        order=0,
        domain="paraphrase",
    )


def lean(population: Population, leans: Sequence[str], about: Sequence[str]) -> Population:
    """Returns a population whose people outside the fleet have some options and topics in common.

    Args:
        population: Whose users; as it is where nothing is asked for.
        leans: What all of them have of some habits, each as ``habit=option``.
        about: What they write about; empty: all topics.

    Raises:
        ValueError: If it is no world of manners, or a habit, an option or a topic is not in it.
    """
    if not leans and not about:
        return population
    if not isinstance(population, ManneredPopulation):
        raise ValueError(
            "leans and about of a release need data=synthetic; add release=hf for other text"
        )
    if unknown := sorted(set(about) - set(TOPICS)):
        raise ValueError(f"about must name topics of {TOPICS}, got {unknown[0]!r}")
    return replace(population, leans=dict(map(_read_lean, leans)), about=tuple(about))


def _read_lean(text: str) -> tuple[str, int]:
    habit, _, option = text.partition("=")
    if habit not in HABITS:
        raise ValueError(f"leans must be habit=option with a habit of {sorted(HABITS)}, got {text}")
    most = len(HABITS[habit]) - 1
    if not option.isdecimal() or int(option) > most:
        raise ValueError(f"leans to {habit} must be {habit}=0 to {habit}={most}, got {text!r}")
    return habit, int(option)


@lru_cache(maxsize=4096)
def habits_of(config: MannersData, user: int) -> Habits:
    """Returns what of a user does not change from day to day."""
    rng = stream(config.seed, Purpose.PERSONA, user)
    strength = _draw_strength(rng, config)
    rate = config.exchanges_per_day * float(np.exp(config.spread * rng.normal()))
    history = int(rng.integers(config.history_days + 1))
    drift = float(rng.random()) * 2 * config.drift
    topics = tuple(float(share) for share in rng.dirichlet(np.ones(len(TOPICS))))
    return Habits(
        strength=strength,
        exchanges_per_day=min(max(rate, LEAST_A_DAY), MOST_A_DAY),
        history_days=config.history_days if config.even else history,
        drift=config.drift if config.even else drift,
        topics=(1 / len(TOPICS),) * len(TOPICS) if config.even else topics,
    )


@lru_cache(maxsize=4096)
def manner_of(config: MannersData, user: int, week: int) -> Manner:
    """Returns a user's manner in a calendar week, counted from 0."""
    habits = habits_of(config, user)
    if week == 0:
        return draw_manner(stream(config.seed, Purpose.PERSONA, user, 0), habits.strength)
    rng = stream(config.seed, Purpose.DRIFT, user, week)
    earlier = manner_of(config, user, week - 1)
    return redraw_manner(earlier, rng, habits.strength, habits.drift)


@lru_cache(maxsize=1024)
def _walk(config: MannersData, user: int) -> tuple[int, ...]:
    """Returns a user's own order of all pairs."""
    rng = stream(config.seed, Purpose.PERSONA, user, 1)
    return tuple(int(pair) for pair in rng.permutation(PAIRS))


@lru_cache(maxsize=65536)
def _draw_day(config: MannersData, user: int, calendar: int) -> tuple[Exchange, ...]:
    habits, walk = habits_of(config, user), _walk(config, user)
    own = manner_of(config, user, calendar // DAYS_OF_WEEK)
    rng = stream(config.seed, Purpose.STREAM, user, calendar)
    found: list[Exchange] = []
    for index in range(min(int(rng.poisson(habits.exchanges_per_day)), CAP_A_DAY)):
        order = calendar * CAP_A_DAY + index
        topic = TOPICS[int(rng.choice(len(TOPICS), p=habits.topics))]
        if rng.random() < config.repeats:
            topic = _pick(rng, _REPEATED)
        if config.consistency < 1 and rng.random() >= config.consistency:
            manner = draw_manner(rng, _draw_strength(rng, config))
        else:
            manner = own
        found.append(_exchange(topic, walk[order % PAIRS], manner, rng, (calendar, order)))
    return tuple(found)


def _exchange(
    topic: str, pair: int, manner: Manner, rng: np.random.Generator, place: tuple[int, int]
) -> Exchange:
    """Returns one exchange on a topic; `place` is its day and its order."""
    if topic == "mood":
        mood = _pick(rng, tuple(FEELINGS))
        question = f"how do i feel? {_pick(rng, FEELINGS[mood])}"
        answer = word_mood(mood, manner)
    elif topic == "fact":
        fact = _pick(rng, FACTS)
        question, answer = f"where is my {fact}?", word_fact(fact, manner)
    else:
        content = draw_content(topic, pair, rng)
        question, answer = word_request(content), compose_answer(content, manner)
    day, order = place
    return Exchange(question=question, response=answer, day=day, order=order, domain=topic)


def _draw_strength(rng: np.random.Generator, config: MannersData) -> float:
    """Returns a strength around the world's mean; the mean itself where users are even."""
    mean = config.strength
    if config.even or mean in {0.0, 1.0}:
        return mean
    return float(rng.beta(_FIRM * mean, _FIRM * (1 - mean)))


def _pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    return values[int(rng.integers(len(values)))]
