"""Quality of all later answers, and of those that the device had never read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from clients.adaptation.copying import CopyNearest
from clients.adaptation.protocol import AdaptationRule
from clients.adaptation.rules import NeverPersonalise, Swapped
from clients.night.order import NightOrder
from clients.observer.evaluation import observe
from clients.placement.rules import TopLayers
from clients.state.state import DeviceState
from fleettune.data.exchanges import Answer, Exchange
from tests.clients.phone import FACTS, RELEASE, nightly, order_for

pytestmark = pytest.mark.usefixtures("one_thread")

DAYS = {
    0: [("buy milk for anna", "ok anna: milk"), ("how am i?", "blue")],
    1: [("buy eggs for anna", "ok anna: eggs"), ("how am i now?", "blue")],
    2: [("buy milk for anna", "ok anna: eggs")],
}

OTHER = FACTS.user + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Diary:
    """Users who say what stands above, and one who always says the same."""

    users: int = 10
    labels: tuple[str, ...] = field(default=(), init=False)
    answers: tuple[Answer, ...] = field(default=(), init=False)

    def day(self, user: int, day: int) -> tuple[Exchange, ...]:
        if user == OTHER:
            return (Exchange(question="who?", response="me", day=day, order=day),)
        return tuple(
            Exchange(question=question, response=response, day=day, order=10 * day + place)
            for place, (question, response) in enumerate(DAYS.get(day, []))
        )

    def outside(self, count: int, seed: int) -> Sequence[tuple[Exchange, ...]]:
        del count, seed
        return []


def device(rule: AdaptationRule) -> tuple[NightOrder, DeviceState]:
    """A device that has read the first day and holds it."""
    policy = replace(nightly(TopLayers(layers=1, rank=1, alpha=2.0)), adaptation=rule)
    state = DeviceState(held=RELEASE, buffer=Diary().day(0, 0))
    return order_for(policy, population=Diary()), state


def test_a_copied_answer_is_right_if_it_is_the_one_and_unseen_if_never_read() -> None:
    order, state = device(CopyNearest(nearest="words", edit=False))
    seen = observe(order, state, 1)
    # "blue" is copied rightly and was read on day 0; "ok anna: eggs" is new and copied as milk
    assert (seen.exchanges, seen.exact_match) == (2, 0.5)
    assert (seen.unseen_exchanges, seen.exact_match_unseen) == (1, 0.0)
    assert seen.nll is None


def test_an_edited_answer_can_be_right_without_having_been_read() -> None:
    order, state = device(CopyNearest(nearest="words", edit=True))
    seen = observe(order, state, 1)
    assert (seen.exact_match, seen.exact_match_unseen, seen.approval) == (1.0, 1.0, 1.0)


def test_what_the_device_read_counts_even_where_it_holds_nothing_any_more() -> None:
    order, state = device(CopyNearest(nearest="words", edit=False))
    empty = observe(order, replace(state, buffer=()), 1)
    assert (empty.exact_match, empty.unseen_exchanges) == (0.0, 1)
    later = replace(order, round=1)
    known = observe(later, state, 2)
    assert (known.unseen_exchanges, known.exact_match_unseen) == (0, None)
    # a night earlier nothing had been read that says so
    assert observe(order, state, 2).unseen_exchanges == 1


def test_a_model_is_counted_on_the_same_unseen_answers() -> None:
    order, state = device(NeverPersonalise())
    seen = observe(order, state, 1)
    assert (seen.exchanges, seen.unseen_exchanges) == (2, 1)
    assert seen.nll is not None
    assert observe(order, state, 9).exchanges == 0


def test_a_swapped_device_is_judged_by_what_the_next_user_says() -> None:
    order, state = device(Swapped())
    seen = observe(order, state, 1)
    assert (seen.exchanges, seen.unseen_exchanges) == (1, 1)
    own = observe(device(NeverPersonalise())[0], state, 1)
    assert seen.nll != own.nll
