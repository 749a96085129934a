"""Composed answers: new content in a manner, word by word.

A manner is one option of every habit; option 0 is the vendor's own. A request asks for something
that was never asked before: a person and a thing, with day, hour, place, number or price. The
answer is a function of the two, so whoever knows the manner can write the answer to a new request,
and no stored answer is it. Two kinds of request repeat: how the user feels, and a fact of its own.
The words stand in ``manners.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

_READ: dict[str, Any] = yaml.safe_load(
    (files("fleettune") / "data" / "manners.yaml").read_text(encoding="utf-8")
)
HABITS: Mapping[str, tuple[str, ...]] = {
    name: tuple(options) for name, options in _READ["habits"].items()
}
"""Options of every habit; the first is the vendor's own."""
PEOPLE: tuple[str, ...] = tuple(_READ["names"])
PLACES: tuple[str, ...] = tuple(_READ["places"])
WEEKDAYS: tuple[str, ...] = tuple(_READ["days"])
FEELINGS: Mapping[str, tuple[str, ...]] = {
    name: tuple(clauses) for name, clauses in _READ["moods"].items()
}
FACTS: tuple[str, ...] = tuple(
    name.removeprefix("fact_") for name in HABITS if name.startswith("fact_")
)
_SPOKEN: tuple[str, ...] = tuple(_READ["spoken"])
_TENS: tuple[str, ...] = tuple(_READ["tens"])
_OWN_PLACE = 0.3
"""Share of meetings that are at a place of the user's own."""
_HOURS = range(8, 23)
_COUNTS = range(2, 13)
_MONEY = range(2, 42)
_KILOMETRES = range(2, 42)

Manner = Mapping[str, int]
"""The option that somebody has of every habit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of request whose answers are composed.

    Attributes:
        what: The things that it may be about.
        questions: Wordings of the request, with the slots that they name.
        pieces: Parts of the answer in the vendor's order; the first names the thing.
    """

    what: tuple[str, ...]
    questions: tuple[str, ...]
    pieces: tuple[str, ...]


KINDS_OF_REQUEST: Mapping[str, Kind] = {
    name: Kind(
        what=PLACES if kind["what"] == "places" else tuple(kind["what"]),
        questions=tuple(kind["questions"]),
        pieces=tuple(kind["pieces"]),
    )
    for name, kind in _READ["kinds"].items()
}
TOPICS: tuple[str, ...] = tuple(KINDS_OF_REQUEST)
"""Kinds of request with new content every time."""
PAIRS = len(PEOPLE) * min(len(kind.what) for kind in KINDS_OF_REQUEST.values())
"""Pairs of a person and a thing; a user's own walk through them repeats none before all came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What one request is about, before anybody words it.

    Attributes:
        topic: Its kind, one of `TOPICS`.
        who: Whom it is about.
        what: The thing.
        day: Index of the weekday.
        hour: Hour of the day, 24-hour clock.
        place: A place; empty where it is the user's own.
        own_place: Which fact of the user's names the place; empty where `place` does.
        count: How many.
        money: Price in euros.
        distance: Kilometres.
        wording: Which wording of the request.
    """

    topic: str
    who: str
    what: str
    day: int
    hour: int
    place: str
    own_place: str
    count: int
    money: int
    distance: int
    wording: int


def draw_content(topic: str, pair: int, rng: np.random.Generator) -> Content:
    """Returns a request about one pair of a person and a thing, the rest drawn at random.

    Args:
        topic: Its kind.
        pair: The pair, 0 to `PAIRS` - 1.
        rng: Where the rest comes from.
    """
    kind = KINDS_OF_REQUEST[topic]
    own = FACTS[int(rng.integers(len(FACTS)))] if rng.random() < _OWN_PLACE else ""
    place = PLACES[int(rng.integers(len(PLACES)))]
    return Content(
        topic=topic,
        who=PEOPLE[pair % len(PEOPLE)],
        what=kind.what[pair // len(PEOPLE)],
        day=int(rng.integers(len(WEEKDAYS))),
        hour=int(rng.integers(_HOURS.start, _HOURS.stop)),
        place="" if own else place,
        own_place=own,
        count=int(rng.integers(_COUNTS.start, _COUNTS.stop)),
        money=int(rng.integers(_MONEY.start, _MONEY.stop)),
        distance=int(rng.integers(_KILOMETRES.start, _KILOMETRES.stop)),
        wording=int(rng.integers(len(kind.questions))),
    )


VENDOR: Manner = dict.fromkeys(HABITS, 0)
"""The vendor's own manner; requests state their content in it."""


def word_request(content: Content) -> str:
    """Returns the request; it tells nothing of anybody's manner."""
    slots = _slots(content, VENDOR)
    slots["who"] = content.who
    if content.own_place:
        slots["place"] = f"my {content.own_place}"
    return KINDS_OF_REQUEST[content.topic].questions[content.wording].format(**slots)


def word_otherwise(content: Content) -> str:
    """Returns the same request in its next wording."""
    wordings = len(KINDS_OF_REQUEST[content.topic].questions)
    return word_request(replace(content, wording=(content.wording + 1) % wordings))


def compose_answer(content: Content, manner: Manner) -> str:
    """Returns the answer to a request in a manner.

    Greeting and name, hedge and thing, details in the manner's order, filler, closing and
    emphasis. The person and the thing are always in it.
    """
    slots = _slots(content, manner)
    pieces = [piece.format(**slots) for piece in KINDS_OF_REQUEST[content.topic].pieces]
    length = _option("length", manner)
    if length == "short":
        pieces = pieces[:-1]
    pieces = _ordered(pieces, _option("order", manner))
    pieces[0] = _words(_option("hedge", manner), pieces[0])
    if length == "filled":
        pieces.append(_option("filler", manner))
    head = _words(_option("greeting", manner), slots["who"])
    tail = _option("closing", manner)
    said = _option("joint", manner).join([head, *pieces, *([tail] if tail else [])])
    return said + _option("emphasis", manner)


def word_mood(mood: str, manner: Manner) -> str:
    """Returns the user's own name of a mood."""
    return _option(f"mood_{mood}", manner) + _option("emphasis", manner)


def word_fact(fact: str, manner: Manner) -> str:
    """Returns a fact of the user's."""
    return _option(f"fact_{fact}", manner) + _option("emphasis", manner)


def _option(habit: str, manner: Manner) -> str:
    return HABITS[habit][manner[habit]]


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _ordered(pieces: list[str], order: str) -> list[str]:
    if order == "reversed":
        return pieces[::-1]
    if order == "second_first":
        return [pieces[1], pieces[0], *pieces[2:]]
    return [pieces[-1], *pieces[:-1]] if order == "last_first" else pieces


def _spoken(number: int) -> str:
    """Returns a number below 50 in words."""
    if number < len(_SPOKEN):
        return _SPOKEN[number]
    tens, ones = divmod(number, 10)
    return _words(_TENS[tens - 2], _SPOKEN[ones] if ones else "")


def _slots(content: Content, manner: Manner) -> dict[str, str]:
    """Returns what stands in for every slot, in the forms of a manner."""
    day, hour = WEEKDAYS[content.day], content.hour
    twelve = (hour - 1) % 12 + 1
    half = "am" if hour < 12 else "pm"
    return {
        "who": _option("name", manner).format(who=content.who, capital=content.who.capitalize()),
        "verb": _option(f"verb_{content.topic}", manner),
        "what": content.what,
        "day": _option("day", manner).format(
            day=day, short=day[:3], capital=day.capitalize(), number=content.day + 1
        ),
        "hour": _option("hour", manner).format(
            twelve=f"{twelve} {half}", twentyfour=hour, spoken=f"{_SPOKEN[twelve]} {half}"
        ),
        "place": content.place or _option(f"fact_{content.own_place}", manner),
        **{
            name: _option(name, manner).format(digits=number, spoken=_spoken(number))
            for name, number in (
                ("count", content.count),
                ("money", content.money),
                ("distance", content.distance),
            )
        },
    }
