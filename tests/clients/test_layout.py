"""How the code of a device is laid out: one bundle, and no rule is asked what type it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[2] / "clients"
BUNDLE = {"Facts", "Manifest", "DevicePolicy", "DeviceState", "Compute"}
"""What `NightOrder` and a night hold together."""
APART_AT_MOST = 5
STORY = ("device.py", "decision", "observer", "retuning", "night", "state")
VALUES = {"Hindered", "Decision", "Action", "str"}
"""What the story of a night may ask with isinstance: whether a result is of this kind."""


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for file in sorted(CLIENTS.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield f"{file.relative_to(CLIENTS)}:{node.lineno} {node.name}", node


def names(annotation: ast.expr | None) -> set[str]:
    if annotation is None:
        return set()
    return {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}


def test_hardly_a_function_takes_the_bundle_apart() -> None:
    apart: list[str] = []
    for where, function in functions():
        given = function.args
        taken = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        if sum(bool(names(each.annotation) & BUNDLE) for each in taken) >= 3:
            apart.append(where)
    assert len(apart) <= APART_AT_MOST, apart


def test_no_function_returns_a_value_or_a_string() -> None:
    def is_mixed(annotation: ast.expr) -> bool:
        return any(
            isinstance(node, ast.BinOp)
            and {"str"} < names(node)
            and not names(node) <= {"str", "None"}
            for node in ast.walk(annotation)
        )

    mixed = [where for where, one in functions() if one.returns and is_mixed(one.returns)]
    assert mixed == []


@pytest.mark.parametrize("room", STORY)
def test_the_story_of_a_night_asks_no_rule_what_type_it_is(room: str) -> None:
    place = CLIENTS / room
    for file in [place] if place.is_file() else sorted(place.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and names(node.func) == {"isinstance"}:
                assert names(node.args[1]) <= VALUES, f"{file}:{node.lineno}"
