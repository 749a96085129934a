"""Finds the questions that a catalogue without text of its own asks, by name or file.

``catalogue.questions=NAME`` names a file of conf/questions, ``catalogue.questions=FILE`` one of the
user's. The questions themselves travel in the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import cast

FOLDER = files("conf") / "questions"
_KEY = "questions"


def read_questions(node: object) -> object:
    """Returns a catalogue's node of the configuration with its questions in place of their name.

    Raises:
        ValueError: If there is no such list, or `list_questions` refuses it.
    """
    if not isinstance(node, Mapping):
        return node
    named = cast(Mapping[str, object], node)
    name = named.get(_KEY)
    return {**named, _KEY: list_questions(name)} if isinstance(name, str) else named


def list_questions(name: str) -> tuple[str, ...]:
    """Returns the questions of a name in conf/questions or of a file, in its order.

    A file is UTF-8 with a question a line; empty lines and those that begin with ``#`` are none.

    Raises:
        ValueError: If there is no such file, or it is not UTF-8.
    """
    known = sorted(item.name.removesuffix(".txt") for item in FOLDER.iterdir())
    file = Path(str(FOLDER / f"{name}.txt")) if name in known else Path(name)
    if not file.is_file():
        raise ValueError(
            f"catalogue.questions must be one of {known} or an existing file, got {name!r}"
        )
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"catalogue.questions must be a text file in UTF-8, got {name!r}, whose byte "
            f"{error.start} is not; save it as UTF-8"
        ) from error
    told = (line.strip() for line in lines)
    return tuple(line for line in told if line and not line.startswith("#"))
