"""The world of manners: pinned, new every time, worded in a manner, and different by user."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from itertools import pairwise
from statistics import mean, pstdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.data.composing import (
    FACTS,
    HABITS,
    KINDS_OF_REQUEST,
    PAIRS,
    PEOPLE,
    TOPICS,
    VENDOR,
    WEEKDAYS,
    Content,
    compose_answer,
    draw_content,
    word_request,
)
from fleettune.data.exchanges import Exchange
from fleettune.data.manners import (
    CAP_A_DAY,
    LEAST_A_DAY,
    MANNERS_VERSION,
    MOST_A_DAY,
    ManneredPopulation,
    MannersData,
    draw_rewording,
    habits_of,
    lean,
    manner_of,
)
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import POCKET
from fleettune.seeds import Purpose, stream

WORLD = "ef63a096faacc8de1feb343c80ac934661a1738c60744ad4df93d17f3cff985b"
DATA = MannersData()
DINNER = Content(
    topic="meet",
    who="anna",
    what="dinner",
    day=4,
    hour=19,
    place="harbour",
    own_place="",
    count=3,
    money=33,
    distance=20,
    wording=0,
)


def lived(config: MannersData, user: int, days: range) -> list[Exchange]:
    return [exchange for day in days for exchange in config.open().day(user, day)]


def test_the_world_is_the_one_that_its_backbone_was_trained_in() -> None:
    digest = hashlib.sha256(f"manners {MANNERS_VERSION}".encode())
    for user in range(20):
        for exchange in lived(DATA, user, range(6)):
            digest.update(f"{user}|{exchange}".encode())
    for conversation in DATA.open().outside(50, 7):
        digest.update(f"{conversation}".encode())
    assert digest.hexdigest() == WORLD, (
        "world changed: raise MANNERS_VERSION and retrain its backbone"
    )


def test_answers_are_worded_as_by_hand() -> None:
    manner = {
        **VENDOR,
        **{"greeting": 2, "name": 1, "hedge": 1, "joint": 2, "order": 3, "length": 2, "filler": 1},
        **{"closing": 2, "emphasis": 1, "day": 1, "hour": 1, "verb_meet": 3},
    }
    assert word_request(DINNER) == "invite anna to dinner on friday at 7 pm, harbour"
    assert compose_answer(DINNER, VENDOR) == "anna, join dinner, friday, 7 pm, harbour"
    assert compose_answer(DINNER, manner) == (
        "hey Anna - maybe harbour - do dinner - fri - 19 h - like always - cheers!"
    )
    short = {**VENDOR, "length": 1, "order": 1, "joint": 1, "money": 3, "count": 1}
    assert compose_answer(replace(DINNER, topic="buy", what="milk"), short) == "anna three buy milk"
    spoken = {**VENDOR, "money": 3}
    assert compose_answer(replace(DINNER, topic="buy", what="milk"), spoken) == (
        "anna, buy milk, 3, thirty three bucks"
    )


@pytest.mark.parametrize("habit", [name for name in HABITS if not re.match("mood|fact", name)])
def test_every_option_of_a_habit_changes_some_answer(habit: str) -> None:
    said: set[tuple[str, ...]] = set()
    for option in range(len(HABITS[habit])):
        manner = {**VENDOR, "length": 2, habit: option}
        said.add(tuple(compose_answer(replace(DINNER, topic=t), manner) for t in TOPICS))
    assert len(said) == len(HABITS[habit])


@given(st.integers(0, 10**6 - 1))
@settings(max_examples=10, deadline=None)
def test_no_composed_answer_of_a_user_ever_comes_again(user: int) -> None:
    said = [e.response for e in lived(DATA, user, range(30)) if e.domain in TOPICS]
    assert len(said) == len(set(said))
    assert DATA.history_days + 30 < PAIRS // CAP_A_DAY


def test_at_most_a_quarter_of_later_answers_stood_in_what_a_device_saw() -> None:
    repeated: list[bool] = []
    for user in range(100):
        seen: set[str] = set()
        for day in range(11):
            today = DATA.open().day(user, day)
            repeated += [exchange.response in seen for exchange in today] if day else []
            seen |= {exchange.response for exchange in today}
    assert len(repeated) > 2000
    assert mean(repeated) <= 0.25


def test_a_request_tells_nothing_of_the_manner() -> None:
    plain, strong = replace(DATA, strength=0.0), replace(DATA, strength=1.0)
    for user in range(5):
        asked = [[e.question for e in lived(one, user, range(4))] for one in (plain, strong)]
        assert asked[0] == asked[1]


def test_who_knows_a_users_manner_can_write_every_answer_and_a_stranger_hardly_any() -> None:
    steady = replace(DATA, drift=0.0, repeats=0.0, exchanges_per_day=2.0)
    known = stranger = count = 0
    for user in range(30):
        own = manner_of(steady, user, 0)
        other = manner_of(steady, user + 1, 0)
        for exchange in lived(steady, user, range(8)):
            slots = read_back(exchange)
            known += compose_answer(slots, own) == exchange.response
            stranger += compose_answer(slots, other) == exchange.response
            count += 1
    assert known == count > 200
    assert stranger / count < 0.02


def read_back(exchange: Exchange) -> Content:
    """The content of a request, found by trying: its wording and its pair stand in the question."""
    rng = np.random.default_rng(0)
    content = draw_content(exchange.domain, 0, rng)
    for number, wording in enumerate(KINDS_OF_REQUEST[exchange.domain].questions):
        slots = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(wording))
        found = re.fullmatch(slots, exchange.question)
        if found is None:
            continue
        parts = found.groupdict()
        given: dict[str, Any] = {"wording": number, "who": parts["who"], "what": parts["what"]}
        if "day" in parts:
            given["day"] = WEEKDAYS.index(parts["day"])
        if "hour" in parts:
            hour, half = parts["hour"].split()
            given["hour"] = int(hour) % 12 + (12 if half == "pm" else 0)
        if "place" in parts:
            place = parts["place"]
            own = place.removeprefix("my ") if place.startswith("my ") else ""
            assert not own or own in FACTS
            given |= {"own_place": own, "place": "" if own else place}
        for name in ("count", "money", "distance"):
            if name in parts:
                given[name] = int(parts[name].split()[0])
        assert given["who"] in PEOPLE
        return replace(content, **given)
    raise AssertionError(exchange.question)


def test_users_differ_in_amount_manner_topics_and_change() -> None:
    users = [habits_of(DATA, user) for user in range(400)]
    rates = [user.exchanges_per_day for user in users]
    assert min(rates) >= LEAST_A_DAY
    assert max(rates) == MOST_A_DAY
    assert np.median(rates) == pytest.approx(DATA.exchanges_per_day, rel=0.2)
    assert {user.history_days for user in users} == set(range(DATA.history_days + 1))
    assert mean(user.strength for user in users) == pytest.approx(DATA.strength, abs=0.05)
    assert pstdev(user.strength for user in users) > 0.15
    assert mean(user.drift for user in users) == pytest.approx(DATA.drift, abs=0.005)
    assert mean(max(user.topics) for user in users) > 0.45


def test_even_users_have_all_that_alike_but_the_manner() -> None:
    even = replace(DATA, even=True, spread=0.0)
    assert len({habits_of(even, user) for user in range(20)}) == 1
    assert len({tuple(manner_of(even, user, 0).items()) for user in range(20)}) == 20


def test_strength_is_the_share_of_habits_that_are_not_the_vendors() -> None:
    assert all(manner_of(replace(DATA, strength=0.0), user, 3) == VENDOR for user in range(5))
    own = manner_of(replace(DATA, strength=1.0), 0, 0)
    assert all(own[name] != 0 for name in HABITS)


def test_a_manner_drifts_by_its_share_each_week() -> None:
    drifting = replace(DATA, drift=0.5, strength=1.0, even=True)
    changed = [
        manner_of(drifting, user, 1)[name] != manner_of(drifting, user, 0)[name]
        for user in range(40)
        for name in HABITS
    ]
    # of the habits drawn anew, one in as many as there are other options stays as it was
    stay = mean(1 / (len(options) - 1) for options in HABITS.values())
    assert mean(changed) == pytest.approx(0.5 * (1 - stay), abs=0.05)


def openings(config: MannersData) -> list[list[str]]:
    """The first word of every answer, by user."""
    users = [lived(config, user, range(6)) for user in range(40)]
    return [[exchange.response.split()[0] for exchange in one] for one in users]


def test_in_the_null_world_a_users_answers_fit_its_own_manner_no_better_than_anothers() -> None:
    null = openings(replace(DATA, consistency=0.0, repeats=0.0))
    same = mean(a == b for said in null for a, b in pairwise(said))
    other = mean(
        a == b for mine, theirs in pairwise(null) for a, b in zip(mine, theirs, strict=False)
    )
    assert same == pytest.approx(other, abs=0.06)
    own = openings(replace(DATA, repeats=0.0))
    assert mean(a == b for said in own for a, b in pairwise(said)) > 0.5


def test_people_outside_may_lean_to_options_and_write_about_some_topics_only() -> None:
    plain = replace(DATA, repeats=0.0)
    leaning = ManneredPopulation(config=plain, leans={"emphasis": 2}, about=("buy",))
    said = [exchange for one in leaning.outside(50, 3) for exchange in one]
    assert {exchange.domain for exchange in said} == {"buy"}
    assert all(exchange.response.endswith("!!") for exchange in said)


@pytest.mark.parametrize(
    ("leans", "about", "told"),
    [
        (("tempo=1",), (), "leans must be habit=option"),
        (("hour=4",), (), "hour=0 to hour=3"),
        (("hour",), (), "hour=0 to hour=3"),
        ((), ("sleep",), "about must name topics"),
    ],
)
def test_leaning_to_what_the_world_has_not_is_refused(
    leans: tuple[str, ...], about: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        lean(DATA.open(), leans, about)
    with pytest.raises(ValueError, match="need data=synthetic"):
        lean(SyntheticData().open(), ("hour=1",), ())


def test_only_a_world_of_manners_leans_and_leaning_to_nothing_changes_nothing() -> None:
    plain = SyntheticData().open()
    assert lean(plain, (), ()) is plain
    leaning = lean(DATA.open(), ("hour=1", "closing=0"), ("go",))
    assert isinstance(leaning, ManneredPopulation)
    assert leaning.leans == {"hour": 1, "closing": 0}
    assert leaning.day(3, 0) == DATA.open().day(3, 0)


def test_nobody_outside_is_a_user_of_the_fleet_and_the_stream_has_its_key() -> None:
    assert DATA.open().outside(5, 1) == replace(DATA, seed=9).open().outside(5, 1)
    assert DATA.open().outside(5, 1) != DATA.open().outside(5, 2)
    rng = stream(0, Purpose.OUTSIDE)
    assert draw_content("buy", 0, rng).who == "anna"


def test_a_rewording_asks_for_the_same_in_the_other_wording() -> None:
    reworded = draw_rewording(np.random.default_rng(4))
    question = reworded.question.removeprefix(POCKET.reword)
    first = read_back(replace(reworded, question=question, domain=topic_of(question)))
    second = read_back(replace(reworded, question=reworded.response, domain=first.topic))
    assert (first.who, first.what) == (second.who, second.what)
    assert {first.wording, second.wording} == {0, 1}


def topic_of(question: str) -> str:
    """The topic whose things the question names one of."""
    words = set(re.findall(r"\w+", question))
    return next(name for name in reversed(TOPICS) if words & set(KINDS_OF_REQUEST[name].what))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"users": 0}, "data.users must be >= 1"),
        ({"exchanges_per_day": 0.1}, "data.exchanges_per_day must be from 0.5 to 12"),
        ({"spread": -1.0}, "data.spread must be >= 0"),
        ({"history_days": -1}, "data.history_days must be >= 0 days"),
        ({"repeats": 0.3}, "data.repeats must be a share from 0 to 0.25"),
        ({"strength": 1.1}, "data.strength must be a share from 0 to 1"),
        ({"drift": 0.6}, "data.drift must be a share from 0 to 0.5"),
        ({"consistency": -0.1}, "data.consistency must be a share from 0 to 1"),
    ],
)
def test_impossible_worlds_are_refused(given: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(DATA, **given).check()
