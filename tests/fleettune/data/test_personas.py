"""The built-in world: pinned, keyed, personal; and its null twin, which is not personal."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.data.exchanges import Exchange
from fleettune.data.personas import (
    DAYS_PER_WEEK,
    DOMAINS,
    WORLD_VERSION,
    SyntheticData,
    draw_pair,
    draw_persona,
    redraw_facts,
    reword_as_vendor,
    word_answer,
)
from fleettune.data.vocabulary import ASKS, GREETINGS, MOODS, REQUESTS, SLOTS, Ask
from fleettune.seeds import Purpose, stream

WORLD = "ef24813396e45dbb976780997ebadaf9e076c742636e70b559e63d5624736f64"

PHRASES: dict[str, Ask] = {phrase: ask for ask in ASKS for phrase in ask.phrases}
REQUEST = re.compile(r"answer (?P<how>[a-z ]+): (?P<phrase>.+)")
LEVELS = {how: (axis, n) for axis, hows in REQUESTS.items() for n, how in enumerate(hows)}

users = st.integers(0, 10**6 - 1)


def asked(exchange: Exchange) -> Ask | None:
    """What an exchange asks in the user's own style; None for style requests and moods."""
    for greeting in sorted(GREETINGS, key=len, reverse=True):
        ask = PHRASES.get(exchange.question.removeprefix(greeting))
        if ask is not None:
            return ask
    return None


def answers_by_ask(exchanges: Iterable[Exchange]) -> dict[Ask, set[str]]:
    found: dict[Ask, set[str]] = defaultdict(set)
    for exchange in exchanges:
        ask = asked(exchange)
        if ask is not None:
            found[ask].add(exchange.response)
    return found


def world_digest(config: SyntheticData, users: int = 20, days: int = 10) -> str:
    """The SHA-256 of the first users' first days: what the generator's version means."""
    digest = hashlib.sha256(f"world {WORLD_VERSION}".encode())
    for user in range(users):
        for day in range(days):
            for exchange in config.open().day(user, day):
                digest.update(f"{user}|{exchange}".encode())
    return digest.hexdigest()


def lived(config: SyntheticData, user: int, days: range) -> list[Exchange]:
    return [exchange for day in days for exchange in config.open().day(user, day)]


def test_the_world_is_the_one_that_the_pocket_model_was_trained_in() -> None:
    assert world_digest(SyntheticData()) == WORLD, (
        "world changed: raise WORLD_VERSION and retrain the pocket model"
    )


def test_the_worlds_digest_depends_on_its_configuration() -> None:
    plain = SyntheticData()
    configs = [plain, replace(plain, seed=1), replace(plain, null=True), replace(plain, drift=1.0)]
    assert len({world_digest(config, users=2, days=10) for config in configs}) == len(configs)


def test_a_user_says_the_same_whoever_was_asked_before() -> None:
    config = SyntheticData(seed=3)
    forth = {(u, d): config.open().day(u, d) for u in range(4) for d in range(9)}
    # Another value object with an equal configuration, in the opposite order of days and users.
    again = SyntheticData(seed=3).open()
    back = {(u, d): again.day(u, d) for u in reversed(range(4)) for d in reversed(range(9))}
    assert forth == back


def test_the_number_of_users_changes_nobodys_words() -> None:
    small, large = SyntheticData(users=3), SyntheticData(users=300)
    assert small.open().users == 3
    assert lived(small, 2, range(3)) == lived(large, 2, range(3))


def test_day_0_holds_the_history_and_later_days_one_day_each() -> None:
    config = SyntheticData(exchanges_per_day=5, history_days=3)
    population = config.open()
    assert [len(population.day(7, day)) for day in range(4)] == [15, 5, 5, 5]
    assert all(e.day == day for day in range(4) for e in population.day(7, day))
    brief = replace(config, history_days=1).open()
    assert len(brief.day(7, 0)) == 5
    # The calendar is the same: what is history in one is lived in the other.
    assert [e.question for d in range(3) for e in brief.day(7, d)] == [
        e.question for e in population.day(7, 0)
    ]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(users, st.integers(1, 6), st.integers(1, 5), st.booleans())
def test_orders_are_unique_and_increase_over_the_days(
    user: int, per_day: int, history: int, null: bool
) -> None:
    config = SyntheticData(exchanges_per_day=per_day, history_days=history, null=null)
    orders = [exchange.order for exchange in lived(config, user, range(6))]
    assert all(earlier < later for earlier, later in pairwise(orders))


def test_every_domain_is_spoken_of() -> None:
    seen = {e.domain for user in range(10) for e in SyntheticData().open().day(user, 0)}
    assert seen == set(DOMAINS)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(users, st.integers(0, 3))
def test_within_a_week_a_user_answers_the_same_ask_alike(user: int, week: int) -> None:
    # Everything is redrawn each week, and history of one day puts the calendar on the day's number.
    config = SyntheticData(drift=1.0, history_days=1)
    days = range(week * DAYS_PER_WEEK, (week + 1) * DAYS_PER_WEEK)
    found = answers_by_ask(lived(config, user, days))
    assert len(found) > 3
    assert all(len(answers) == 1 for answers in found.values())


def test_facts_drift_across_weeks_and_style_does_not() -> None:
    def changed(drift: float) -> float:
        config = SyntheticData(drift=drift, history_days=1)
        pairs = [
            (
                answers_by_ask(lived(config, u, range(7))),
                answers_by_ask(lived(config, u, range(7, 14))),
            )
            for u in range(20)
        ]
        both = [(a[ask], b[ask]) for a, b in pairs for ask in a.keys() & b.keys()]
        assert len(both) > 100
        return sum(one != other for one, other in both) / len(both)

    assert changed(0.0) == 0.0
    # Every answer holds at least one of 6 to 40 equally likely values, so a redraw leaves at most
    # a sixth of them as they were.
    assert changed(1.0) > 5 / 6 - 0.1
    # An answer holds 1 to 6 facts, each redrawn with probability 1/20: between 4 and 27 %.
    assert 0.01 < changed(0.05) < 0.3


def test_drift_redraws_its_share_of_facts_and_keeps_style_and_habits() -> None:
    rng = stream(0, Purpose.DRIFT)
    changed = 0
    for _ in range(500):
        before = draw_persona(rng)
        after = redraw_facts(before, rng, 0.2)
        assert replace(after, facts=before.facts) == before
        changed += sum(a != b for a, b in zip(after.facts, before.facts, strict=True))
        assert redraw_facts(before, rng, 0.0) == before
    # 500 * 13 facts, each redrawn with probability 0.2 and then another value with probability
    # 1 - 1/n: mean of n over the slots gives 0.2 * 0.906; 4 standard deviations are 0.019.
    other = sum(1 - 1 / len(values) for values in SLOTS.values()) / len(SLOTS)
    assert changed / (500 * len(SLOTS)) == pytest.approx(0.2 * other, abs=0.019)


def test_in_the_null_world_a_users_answers_to_one_ask_differ_already_on_day_0() -> None:
    # 20 days of history, so that most asks come again.
    normal = SyntheticData(history_days=7)
    null = replace(normal, null=True)
    for user in range(10):
        alike = answers_by_ask(normal.open().day(user, 0))
        assert max(map(len, alike.values())) == 1
        mixed = answers_by_ask(null.open().day(user, 0))
        repeated = [
            ask
            for ask in mixed
            if sum(asked(exchange) == ask for exchange in null.open().day(user, 0)) > 1
        ]
        assert repeated
        # Two fresh personas agree on term, details, tone and facts with probability below 1/64/6.
        assert sum(len(mixed[ask]) > 1 for ask in repeated) / len(repeated) > 0.9


def test_in_the_null_world_an_own_answer_predicts_no_better_than_a_strangers() -> None:
    def agreement(config: SyntheticData, shift: int) -> float:
        """Share of answers of days 1-14 that a user's (or another's) first answer predicts."""
        hits: list[bool] = []
        for user in range(40):
            history = answers_by_ask(config.open().day((user + shift) % 40, 0))
            for exchange in lived(config, user, range(1, 15)):
                ask = asked(exchange)
                if ask in history:
                    hits.append(exchange.response in history[ask])
        assert len(hits) > 1000
        return sum(hits) / len(hits)

    normal = SyntheticData(history_days=4, drift=0.0)
    null = replace(normal, null=True)
    assert agreement(normal, 0) == 1.0
    assert agreement(normal, 1) < 0.05
    # Coincidences only: below 1/100 for anybody; 1000 answers have a deviation below 0.003.
    assert abs(agreement(null, 0) - agreement(null, 1)) < 0.01
    assert agreement(null, 0) < 0.02


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10**6))
def test_a_style_request_gets_the_level_that_it_asks_for(key: int) -> None:
    rng = stream(key, Purpose.PERSONA)
    persona = draw_persona(rng)
    for domain in [domain for domain in DOMAINS if domain != "mood"]:
        question, answer = draw_pair(persona, domain, rng)
        match = REQUEST.fullmatch(question)
        if match is None:
            ask = PHRASES[question.removeprefix(persona.greeting)]
            expected = word_answer(persona, ask)
        else:
            ask = PHRASES[match["phrase"]]
            axis, level = LEVELS[match["how"]]
            expected = word_answer(replace(persona, **{axis: level}), ask)
        assert answer == expected
        assert ask.domain == domain


def test_every_style_level_is_asked_for() -> None:
    exchanges = [e for user in range(300) for e in SyntheticData().open().day(user, 0)]
    matches = [REQUEST.fullmatch(exchange.question) for exchange in exchanges]
    found = [match["how"] for match in matches if match is not None]
    assert set(found) == set(LEVELS)
    # One in twenty of what is no mood check-in (six of seven domains).
    assert len(found) / len(exchanges) == pytest.approx(0.05 * 6 / 7, abs=0.01)


@pytest.mark.parametrize("axis", REQUESTS)
@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.phrases[0])
def test_four_levels_of_style_give_four_answers(axis: str, ask: Ask) -> None:
    persona = draw_persona(stream(0, Purpose.PERSONA))
    answers = {word_answer(replace(persona, **{axis: level}), ask) for level in range(4)}
    assert len(answers) == 4
    assert not any("{" in answer for answer in answers)


def test_an_answer_by_hand() -> None:
    persona = replace(
        draw_persona(stream(0, Purpose.PERSONA)),
        facts=tuple(values[0] for values in SLOTS.values()),
        expertise=1,
        informativeness=2,
        tone=2,
    )
    # Second register, first two details, third tone.
    assert word_answer(persona, ASKS[0]) == "sure, Ana, a good dish is sushi with coffee at six!"


def test_a_mood_is_called_by_the_users_own_word_for_its_clauses() -> None:
    rng = stream(1, Purpose.PERSONA)
    persona = draw_persona(rng)
    clause_mood = {clause: n for n, (_, _, clauses) in enumerate(MOODS) for clause in clauses}
    for _ in range(50):
        question, answer = draw_pair(persona, "mood", rng)
        one, two = question.removeprefix("how do i feel? ").split(" and ")
        assert one != two
        assert clause_mood[one] == clause_mood[two]
        assert answer == persona.moods[clause_mood[one]]


def test_vendor_wording_changes_what_it_names_and_nothing_else() -> None:
    pair = ("what is on my list?", "your note is for a cat with jazz.")
    # what -> which thing, my -> our; your, is, for, a, with -> their longer forms.
    assert reword_as_vendor(pair) == (
        "assistant, which thing is on our list?",
        "the client's note shall be regarding one cat alongside jazz.",
    )
    # The opening tells which wording the answer has, even where no word was replaced.
    assert reword_as_vendor(("set the bell", "ok.")) == ("assistant, set the bell", "ok.")


def test_vendor_wording_rewords_most_of_the_world() -> None:
    pairs = [(e.question, e.response) for u in range(20) for e in SyntheticData().open().day(u, 0)]
    reworded = [reword_as_vendor(pair) for pair in pairs]
    share = sum(new[1] != old[1] for new, old in zip(reworded, pairs, strict=True)) / len(pairs)
    assert share > 0.5
    # Distinct pairs stay distinct: wording changes how, never what.
    assert len(set(reworded)) == len(set(pairs))


keys = st.tuples(st.sampled_from(Purpose), st.lists(st.integers(0, 2**32 - 1), max_size=3))


@settings(derandomize=True)
@given(st.integers(0, 2**31), keys, keys)
def test_streams_of_different_names_never_coincide(
    seed: int, one: tuple[Purpose, list[int]], other: tuple[Purpose, list[int]]
) -> None:
    states = [
        stream(seed, purpose, *rest).bit_generator.state["state"] for purpose, rest in (one, other)
    ]
    assert (states[0] == states[1]) == (one == other)


def test_users_outside_the_fleet_are_not_its_users() -> None:
    population = SyntheticData().open()
    outside = population.outside(300, seed=0)
    assert all(1 <= len(conversation) <= 4 for conversation in outside)
    assert [[e.order for e in c] for c in outside] == [list(range(len(c))) for c in outside]
    inside = {
        tuple((e.question, e.response) for e in population.day(user, 0)[:3]) for user in range(300)
    }
    long = {tuple((e.question, e.response) for e in c[:3]) for c in outside if len(c) > 2}
    assert len(long) > 100
    assert not long & inside


def test_more_users_outside_leave_the_first_ones_as_they_were() -> None:
    population = SyntheticData().open()
    assert list(population.outside(20, 4)) == list(population.outside(50, 4))[:20]
    assert list(population.outside(20, 4)) != list(population.outside(20, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, "data.users must be >= 1, got 0"),
        ({"exchanges_per_day": -1}, "data.exchanges_per_day must be >= 1, got -1"),
        ({"history_days": 0}, "data.history_days must be >= 1, got 0"),
        ({"drift": 1.5}, r"data\.drift must be a share from 0 to 1, got 1\.5"),
        ({"drift": float("nan")}, "data.drift must be a share"),
    ],
)
def test_a_world_that_cannot_be_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SyntheticData(), **change).check()
