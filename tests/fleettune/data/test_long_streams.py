"""Long streams: the same exchanges in bursts or mixed, later ones over all domains."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.data.long_streams import StreamData
from fleettune.data.personas import DOMAINS, draw_persona
from fleettune.fleet.registry import DATA_TYPES
from fleettune.records import from_record, to_record
from fleettune.seeds import Purpose, stream

BURSTS = StreamData(users=50, history=84, burst=12, held_out=14)
users = st.integers(0, 49)
MAIL = r"(?:mail|message|reply|correspondence) from (\w+)"


@settings(derandomize=True, deadline=None, max_examples=20)
@given(user=users, seed=st.integers(0, 99))
def test_both_orders_hold_the_same_exchanges(user: int, seed: int) -> None:
    data = replace(BURSTS, seed=seed)
    bursts = data.open().day(user, 0)
    iid = replace(data, order="iid").open().day(user, 0)
    texts = [[(one.question, one.response, one.domain) for one in part] for part in (bursts, iid)]
    assert texts[0] != texts[1]
    assert Counter(texts[0]) == Counter(texts[1])
    for part in (bursts, iid):
        assert [one.order for one in part] == list(range(84))
        assert {one.day for one in part} == {0}
    later = data.open().day(user, 3)
    assert later == replace(data, order="iid").open().day(user, 3)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(user=users)
def test_bursts_are_of_one_domain_and_every_domain_has_its_share(user: int) -> None:
    past = BURSTS.open().day(user, 0)
    for start in range(0, 84, 12):
        assert len({one.domain for one in past[start : start + 12]}) == 1
    assert set(Counter(one.domain for one in past).values()) == {12}
    mixed = replace(BURSTS, order="iid").open().day(user, 0)
    assert len({one.domain for one in mixed[:12]}) > 2


@settings(derandomize=True, deadline=None, max_examples=20)
@given(user=users, day=st.integers(1, 9))
def test_later_days_are_new_and_even_over_domains(user: int, day: int) -> None:
    population = BURSTS.open()
    later = population.day(user, day)
    assert Counter(one.domain for one in later) == dict.fromkeys(DOMAINS, 2)
    assert {one.day for one in later} == {day}
    orders = {one.order for one in (*population.day(user, day - 1), *population.day(user, 0))}
    assert not orders & {one.order for one in later}


def test_a_skewed_past_holds_every_domain_and_some_far_more_often() -> None:
    data = replace(BURSTS, history=600, skew=1.5)
    for user in range(5):
        counts = Counter(one.domain for one in data.open().day(user, 0))
        assert set(counts) == set(DOMAINS)
        assert min(counts.values()) >= 12
        assert max(counts.values()) >= 3 * min(counts.values())
        later = Counter(one.domain for one in data.open().day(user, 1))
        assert set(later.values()) == {2}


def test_a_user_is_the_built_in_worlds_and_the_null_worlds_is_nobody() -> None:
    def names(data: StreamData) -> set[str]:
        past = data.open().day(7, 0)
        mails = [re.search(MAIL, one.response) for one in past]
        return {found[1] for found in mails if found}

    data = StreamData(seed=3)
    assert names(data) == {draw_persona(stream(3, Purpose.PERSONA, 7)).facts[0]}
    assert len(names(replace(data, null=True))) > 5


def test_a_stream_crosses_as_data_and_bad_ones_are_refused() -> None:
    assert from_record(to_record(BURSTS), DATA_TYPES, "data") == BURSTS
    assert len(BURSTS.open().outside(3, 0)) == 3
    for changes, told in (
        ({"history": 0}, "data.history must be >= 1"),
        ({"burst": 85}, "data.burst must be <= data.history"),
        ({"order": "sorted"}, "data.order must be one of"),
        ({"skew": -1.0}, "data.skew must be from 0 to 10"),
        ({"held_out": 0}, "data.held_out must be >= 1"),
    ):
        with pytest.raises(ValueError, match=told):
            replace(BURSTS, **changes).check()
