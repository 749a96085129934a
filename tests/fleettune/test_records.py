"""Typed records: what was written reads back, and every fault names its field and value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.records import Types, build_value, from_record, read_json, to_record


class Shape(Protocol):
    """An open field: any known type may stand there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    x: float
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    radius: float
    holes: int = 1

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"radius must be > 0, got {self.radius}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    name: str
    count: int
    weight: float
    loud: bool
    dot: Dot
    shape: Shape
    either: Dot | Ring
    limit: float | None = None
    dots: tuple[Dot, ...] = ()
    mix: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


KNOWN: Types = {"Dot": Dot, "Ring": Ring, "Plan": Plan}

PLAIN: dict[str, Any] = {
    "name": "a",
    "count": 3,
    "weight": 0.5,
    "loud": True,
    "dot": {"x": 1.0},
    "shape": {"type": "Ring", "radius": 2.0},
    "either": {"type": "Ring", "radius": 1.0},
}

numbers = st.floats(allow_nan=False, allow_infinity=False)
dots = st.builds(Dot, x=numbers, label=st.text())
rings = st.builds(Ring, radius=st.floats(min_value=1e-6, allow_infinity=False), holes=st.integers())
plans = st.builds(
    Plan,
    name=st.text(),
    count=st.integers(),
    weight=numbers,
    loud=st.booleans(),
    dot=dots,
    shape=dots | rings,
    either=dots | rings,
    limit=st.none() | numbers,
    dots=st.lists(dots, max_size=3).map(tuple),
    mix=st.just({}),
    notes=st.just({}),
)


@settings(derandomize=True, deadline=None)
@given(plans)
def test_a_value_reads_back_from_its_json(plan: Plan) -> None:
    assert from_record(json.loads(json.dumps(to_record(plan))), KNOWN, "plan") == plan


def test_a_record_holds_type_names_and_plain_values() -> None:
    ring = Ring(radius=1.5)
    assert to_record(ring) == {"type": "Ring", "radius": 1.5, "holes": 1}
    assert to_record((ring, None, "a")) == [to_record(ring), None, "a"]


def test_defaults_stand_in_for_what_is_not_given() -> None:
    plan = build_value(Plan, PLAIN, KNOWN, "plan")
    assert plan.dot == Dot(x=1.0)
    assert plan.either == Ring(radius=1.0)
    assert (plan.limit, plan.dots, plan.mix) == (None, (), {})


def test_a_whole_number_may_stand_for_a_number_and_becomes_one() -> None:
    plan = build_value(Plan, {**PLAIN, "weight": 2, "limit": 3, "mix": {"phone": 1}}, KNOWN, "plan")
    for value in (plan.weight, plan.limit, plan.mix["phone"]):
        assert isinstance(value, float)
    assert (plan.weight, plan.limit, dict(plan.mix)) == (2.0, 3.0, {"phone": 1.0})


def test_lists_and_mappings_are_read_item_by_item() -> None:
    notes = {"anything": [1, {"goes": None}]}
    given_dots = [{"x": 1.0}, {"type": "Dot", "x": 2}]
    plan = build_value(Plan, {**PLAIN, "dots": given_dots, "notes": notes}, KNOWN, "plan")
    assert plan.dots == (Dot(x=1.0), Dot(x=2.0))
    assert plan.notes == notes


def test_a_value_that_was_built_already_passes() -> None:
    dot, ring = Dot(x=4.0), Ring(radius=1.0)
    plan = build_value(Plan, {**PLAIN, "dot": dot, "shape": ring, "either": ring}, {}, "plan")
    assert (plan.dot, plan.shape, plan.either) == (dot, ring, ring)


@pytest.mark.parametrize(
    ("change", "path", "expected", "value"),
    [
        ({"count": True}, "plan.count", "a whole number", "True"),
        ({"count": 1.0}, "plan.count", "a whole number", "1.0"),
        ({"count": "3"}, "plan.count", "a whole number", "'3'"),
        ({"count": None}, "plan.count", "a whole number", "None"),
        ({"weight": "x"}, "plan.weight", "a number", "'x'"),
        ({"weight": False}, "plan.weight", "a number", "False"),
        ({"weight": [1.0]}, "plan.weight", "a number", "[1.0]"),
        ({"loud": 1}, "plan.loud", "true or false", "1"),
        ({"name": 7}, "plan.name", "text", "7"),
        ({"name": {"type": "Dot", "x": 1.0}}, "plan.name", "text", "Dot(x=1.0"),
        ({"limit": "none"}, "plan.limit", "a number", "'none'"),
        ({"dot": 3}, "plan.dot", "Dot", "3"),
        ({"dot": {"x": "far"}}, "plan.dot.x", "a number", "'far'"),
        ({"dot": {"type": "Ring", "radius": 1.0}}, "plan.dot", "Dot", "Ring(radius=1.0"),
        ({"dot": Ring(radius=1.0)}, "plan.dot", "Dot", "Ring(radius=1.0"),
        ({"shape": "Ring"}, "plan.shape", "Shape", "'Ring'"),
        ({"shape": {"type": "Ring", "radius": "r"}}, "plan.shape.radius", "a number", "'r'"),
        ({"either": 5}, "plan.either", "Dot or Ring", "5"),
        ({"either": {"type": "Plan"}}, "plan.either", "Dot or Ring", "Plan"),
        ({"dots": [{"x": 1.0}, {"x": True}]}, "plan.dots[1].x", "a number", "True"),
        ({"dots": {"type": "Dot", "x": 1.0}}, "plan.dots", "tuple", "Dot(x=1.0"),
        ({"mix": {"phone": "half"}}, "plan.mix.phone", "a number", "'half'"),
    ],
)
def test_a_wrong_type_names_field_rule_and_value(
    change: dict[str, Any], path: str, expected: str, value: str
) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        build_value(Plan, {**PLAIN, **change}, KNOWN, "plan")
    message = str(caught.value)
    assert message.startswith(f"{path} must be {expected}")
    assert value in message


def test_an_unknown_key_names_itself_and_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"plan\.dot\.y is not a known key; .*'label', 'x'"):
        build_value(Plan, {**PLAIN, "dot": {"x": 1.0, "y": 2.0}}, KNOWN, "plan")
    with pytest.raises(ValueError, match=r"plan\.nmae is not a known key"):
        build_value(Plan, {**PLAIN, "nmae": "a"}, KNOWN, "plan")


def test_a_missing_key_is_named() -> None:
    short = {key: value for key, value in PLAIN.items() if key != "count"}
    with pytest.raises(ValueError, match=r"plan\.count must be given"):
        build_value(Plan, short, KNOWN, "plan")
    with pytest.raises(ValueError, match=r"plan\.shape\.radius must be given"):
        build_value(Plan, {**PLAIN, "shape": {"type": "Ring"}}, KNOWN, "plan")


@pytest.mark.parametrize("name", ["os.system", "dot", None, 3, ["Dot"], {"Dot": 1}])
def test_a_type_that_is_not_known_is_refused_and_never_imported(name: object) -> None:
    with pytest.raises(
        ValueError, match=r"plan must be one of \['Dot', 'Plan', 'Ring'\]"
    ) as caught:
        from_record({"type": name, "x": 1.0}, KNOWN, "plan")
    assert repr(name) in str(caught.value)


def test_a_record_without_a_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"plan must be one of .* got None"):
        from_record({"x": 1.0}, KNOWN, "plan")


def test_a_rule_that_the_type_itself_breaks_names_the_place() -> None:
    with pytest.raises(ValueError, match=r"plan\.shape: radius must be > 0, got -1\.0"):
        build_value(Plan, {**PLAIN, "shape": {"type": "Ring", "radius": -1}}, KNOWN, "plan")


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Painted:
    colour: Colour
    dots: Mapping[str, Dot]


def test_words_of_a_closed_list_and_mappings_of_values_come_back() -> None:
    types: Types = {"Dot": Dot, "Painted": Painted}
    painted = Painted(colour=Colour.RED, dots={"left": Dot(x=1.0)})
    plain = json.loads(json.dumps(to_record(painted)))
    found = from_record(plain, types, "painted")
    assert found == painted
    assert found.colour is Colour.RED
    with pytest.raises(ValueError, match=r"painted.colour must be one of \['red', 'blue'\], got 1"):
        from_record({**plain, "colour": 1}, types, "painted")


@pytest.mark.parametrize(
    "text", ["{", "[" * 30_000, "1" * 5_000, b"\xff", "", "nul"], ids=lambda text: str(text)[:8]
)
def test_what_is_no_json_is_told_with_its_place(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^the file must be JSON in UTF-8, is not: ") as told:
        read_json(text, "the file")
    assert type(told.value) is ValueError
    assert len(str(told.value)) < 300


def test_a_number_that_no_float_holds_is_refused_in_a_short_sentence() -> None:
    with pytest.raises(ValueError, match=r"dot\.x must be a number, got 1000") as told:
        build_value(Dot, {"x": 10**400}, {}, "dot")
    assert len(str(told.value)) < 300


@pytest.mark.parametrize("record", [[], "Dot", 3, None, {"type": ["Dot"]}])
def test_what_is_no_record_is_refused(record: object) -> None:
    with pytest.raises(ValueError, match=r"place must be one of \['Dot'\], got"):
        from_record(record, {"Dot": Dot}, "place")
