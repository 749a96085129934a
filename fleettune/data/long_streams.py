"""Long streams: a user of the built-in world with a long past, in bursts of one domain or mixed.

For questions about what to keep of a stream. The first day holds the whole past, every later day
exchanges drawn evenly over all domains, on which the observer evaluates: what was kept must stand
for all of them. Bursts and i.i.d. order hold the same exchanges, so they are paired by user; and
every domain has its share of the past, so nothing but the order tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from fleettune.data.exchanges import Answer, Exchange
from fleettune.data.personas import DOMAINS, Persona, SyntheticData, draw_pair, draw_persona
from fleettune.seeds import Purpose, stream

BURSTS, IID = "bursts", "iid"
ORDERS = (BURSTS, IID)
_PAST, _SHUFFLE, _LATER = 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamData:
    """Configuration of long streams.

    Attributes:
        users: Number of users.
        history: Exchanges of a user's past, which arrive on day 0.
        burst: Exchanges of one domain after another; every domain comes once before one comes
            again, in an order of the user's own.
        order: ``bursts``, or ``iid``: the same exchanges in random order.
        held_out: Exchanges of every later day, the domains in turn.
        skew: 0 gives every domain an equal share of the past. Above, every domain has one burst and
            the rest are drawn with weights 1 / rank ** skew, in a ranking of the user's own; later
            days stay even.
        null: True for the world without personas.
    """

    users: int = 1_000_000
    history: int = 630
    burst: int = 30
    order: str = BURSTS
    held_out: int = 42
    skew: float = 0.0
    null: bool = False
    seed: int = 0

    def check(self) -> None:
        """Raises ValueError if a value cannot describe a stream."""
        for name in ("users", "history", "burst", "held_out"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be >= 1, got {getattr(self, name)}")
        if self.burst > self.history:
            raise ValueError(
                f"data.burst must be <= data.history ({self.history} exchanges), got {self.burst}"
            )
        if not 0 <= self.skew <= 10:
            raise ValueError(f"data.skew must be from 0 to 10, got {self.skew}")
        if self.order not in ORDERS:
            raise ValueError(f"data.order must be one of {ORDERS}, got {self.order!r}")

    def open(self) -> StreamPopulation:
        """Returns the population that this configuration describes."""
        return StreamPopulation(config=self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPopulation:
    """Users with long streams; implements `fleettune.data.exchanges.Population`."""

    config: StreamData
    labels: tuple[str, ...] = field(default=(), init=False)
    answers: tuple[Answer, ...] = field(default=(), init=False)

    @property
    def users(self) -> int:
        """Number of users that the fleet may hold."""
        return self.config.users

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        """Returns one user's exchanges of one day; day 0 holds the past."""
        return _past(self.config, user) if day == 0 else _later(self.config, user, day)

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        """Returns conversations of users outside the fleet, those of the built-in world."""
        return SyntheticData().open().outside(count, seed)


# every arm reads the same past
@lru_cache(maxsize=512)
def _past(config: StreamData, user: int) -> tuple[Exchange, ...]:
    rng = stream(config.seed, Purpose.STREAM, user, 0, _PAST)
    persona = draw_persona(stream(config.seed, Purpose.PERSONA, user))
    bursts = -(-config.history // config.burst)
    domains = _skewed(bursts, config.skew, rng) if config.skew else _in_turn(bursts, rng)
    found = [
        _exchange(config, persona, domains[place // config.burst], rng)
        for place in range(config.history)
    ]
    if config.order == IID:
        places = stream(config.seed, Purpose.STREAM, user, 0, _SHUFFLE).permutation(len(found))
        found = [found[int(place)] for place in places]
    return tuple(replace(exchange, order=order) for order, exchange in enumerate(found))


def _later(config: StreamData, user: int, day: int) -> tuple[Exchange, ...]:
    rng = stream(config.seed, Purpose.STREAM, user, day, _LATER)
    persona = draw_persona(stream(config.seed, Purpose.PERSONA, user))
    first = config.history + (day - 1) * config.held_out
    return tuple(
        replace(_exchange(config, persona, domain, rng), day=day, order=first + place)
        for place, domain in enumerate(_in_turn(config.held_out, rng))
    )


def _in_turn(count: int, rng: np.random.Generator) -> list[str]:
    """Returns domains, each once before any comes again."""
    found: list[str] = []
    while len(found) < count:
        found += [DOMAINS[int(place)] for place in rng.permutation(len(DOMAINS))]
    return found[:count]


def _skewed(count: int, skew: float, rng: np.random.Generator) -> list[str]:
    """Returns domains in random order: each once, the rest by weights that fall with its rank."""
    first = _in_turn(min(count, len(DOMAINS)), rng)
    weights = 1.0 / np.arange(1, len(DOMAINS) + 1) ** skew
    ranked = _in_turn(len(DOMAINS), rng)
    drawn = rng.choice(len(DOMAINS), size=count - len(first), p=weights / weights.sum())
    found = first + [ranked[int(place)] for place in drawn]
    return [found[int(place)] for place in rng.permutation(count)]


def _exchange(
    config: StreamData, persona: Persona, domain: str, rng: np.random.Generator
) -> Exchange:
    whose = draw_persona(rng) if config.null else persona
    question, answer = draw_pair(whose, domain, rng)
    return Exchange(question=question, response=answer, day=0, order=0, domain=domain)
