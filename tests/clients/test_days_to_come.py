"""What a rule is handed never answers for a day that the device has not lived."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType, MethodType, ModuleType
from typing import Any, cast

import numpy as np
import pytest

from clients.adaptation import Action, Decision, DeviceView, RuleTraits
from clients.device import run_round
from clients.night.order import NightOrder
from clients.placement import TopLayers
from clients.selection.buffer import Arrival, Item
from clients.selection.rules import Embeddings, Priority, Reservoir
from clients.start import FoundStart, StartContext
from clients.state.state import DeviceState
from clients.synthesis.rules import Expansion, Source
from clients.tuning.context import PlacementContext, Preparation
from fleettune.adapters.patch import Patch, Placement
from fleettune.catalogue.manifest import CatalogueOffer
from fleettune.jobs.jobs import Compute
from fleettune.shapes import Shapes
from tests.clients.phone import RELEASE, WORLD, nightly, order_for

TOP = TopLayers(layers=1, rank=1, alpha=2.0)
SEEN: dict[str, list[object]] = {}
"""All that the rules of these tests were handed, by what they were asked."""


def note(asked: str, *handed: object) -> None:
    SEEN.setdefault(asked, []).extend(handed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeks:
    """Asks what its user says tomorrow."""

    @property
    def traits(self) -> RuleTraits:
        return RuleTraits(needs_view=True)

    def decide(self, view: DeviceView) -> Decision:
        tomorrow = view.facts.population.day(view.facts.user, 2)
        raise AssertionError(f"the rule read {tomorrow}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """A rule of every kind, which notes what it is handed."""

    embeddings: str = Embeddings.STORED

    @property
    def traits(self) -> RuleTraits:
        return RuleTraits(needs_view=True)

    def keep(
        self, held: Sequence[Item], arrived: Sequence[Arrival], quota_bytes: int, priority: Priority
    ) -> tuple[Item, ...]:
        note("keep", held, arrived, priority)
        return Reservoir().keep(held, arrived, quota_bytes, priority)

    def expand(self, source: Source, compute: Compute) -> Expansion:
        note("expand", source, compute)
        return Expansion()

    def decide(self, view: DeviceView) -> Decision:
        note("decide", view)
        return Decision(action=Action.RETUNE, reason="watching")

    def check(self, shapes: Shapes) -> None:
        TOP.check(shapes)

    def prepare(self, context: PlacementContext) -> Preparation:
        note("prepare", context)
        patch = Patch(release=0, alpha=1.0, factors={})
        return Preparation(patch=patch)

    def place(self, context: PlacementContext) -> Placement:
        note("place", context)
        return TOP.place(context)

    def smaller(self, placement: Placement) -> None:
        note("smaller", placement)

    def allows(self, context: PlacementContext, placement: Placement) -> bool:
        note("allows", context, placement)
        return True

    def start(self, preparation: Preparation, fresh: Patch) -> Patch:
        note("start", preparation, fresh)
        return fresh

    def find(self, context: StartContext) -> FoundStart:
        note("find", context)
        return FoundStart()


def test_a_rule_that_asks_for_a_later_day_is_told_that_it_may_not() -> None:
    order = order_for(replace(nightly(TOP), adaptation=Peeks()))
    state, _ = run_round(order, DeviceState(), observed=False)
    later = replace(order, release=replace(RELEASE, version=1), round=1)
    with pytest.raises(AttributeError, match="no population, which would answer for days to come"):
        run_round(later, state, observed=False)


def test_nothing_that_any_rule_is_handed_leads_to_the_days_to_come() -> None:
    rule = Watching()
    policy = replace(
        nightly(TOP),
        selection=rule,
        synthesis=rule,
        adaptation=rule,
        placement=rule,
        start=rule,
    )
    offer = CatalogueOffer(data=b"", store="")
    order = replace(order_for(policy), catalogue=offer)
    state, _ = run_round(order, DeviceState(), observed=False)
    later = replace(order, release=replace(RELEASE, version=1), round=1)
    run_round(later, state, observed=False)
    assert set(SEEN) == {"keep", "expand", "decide", "prepare", "place", "start", "find"}
    for asked, handed in SEEN.items():
        for value in reachable(handed):
            assert not isinstance(value, NightOrder), asked
            assert not answers_for_days(value), (asked, value)
    # what is looked for would be found
    world = WORLD
    for hiding in ([order], {"days": world.day}, lambda: world):
        assert any(map(answers_for_days, reachable(hiding)))


def answers_for_days(value: object) -> bool:
    return callable(getattr(type(value), "day", None))


def reachable(*roots: object) -> Iterator[object]:
    """Everything that values hold: fields, items, and what functions close over."""
    waiting, known = list(roots), set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in known or isinstance(value, type | ModuleType | np.ndarray):
            continue
        known.add(id(value))
        yield value
        waiting += held_by(value)


def held_by(value: Any) -> list[object]:  # noqa: ANN401 - whatever a rule is handed
    if isinstance(value, Mapping):
        named = cast(Mapping[object, object], value)
        return [*named.keys(), *named.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(cast(Sequence[object], value))
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        closed = [cell.cell_contents for cell in value.__closure__ or ()]
        return [*closed, *(value.__defaults__ or ())]
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    own = [getattr(value, name) for name in slots if hasattr(type(value), name)]
    return [*own, *getattr(value, "__dict__", {}).values()]
