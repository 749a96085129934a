"""One YAML file is one constructor call: ``_target_`` names it, the other keys are its fields."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from fleettune.records import build_value

TARGET = "_target_"
OURS = ("clients", "strategies", "fleettune", "simulations")
CONF = Path(str(files("conf")))
RENAMED: Mapping[str, str] = {
    "Explained": "NearestEntry",
    "Quality": "QualityReplace",
    "Stack": "ExactMean",
}
"""Names of classes that a configuration may name, by the name that they had before."""


def build_target(node: object, where: str, **context: object) -> Any:  # noqa: ANN401 - any frozen value
    """Returns the value that a node of the configuration describes.

    Args:
        node: A mapping with ``_target_``.
        where: Its key, for errors.
        context: Fields that the run decides where the node does not name them.

    Raises:
        ValueError: If the target is no dataclass, or a field is unknown, missing or mistyped.
    """
    if not isinstance(node, Mapping) or TARGET not in node:
        raise ValueError(f"{where} must be a mapping with {TARGET}, got {node!r}")
    named = cast(Mapping[str, Any], node)
    try:
        module, _, name = str(named[TARGET]).rpartition(".")
        found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:
        new = find_new_home(str(named[TARGET]))
        reason = f"it is called {new} now" if new else f"{error}; is its folder on PYTHONPATH?"
        raise ValueError(
            f"{where}.{TARGET} must name an importable class, got {named[TARGET]!r}: {reason}"
        ) from error
    if not (is_dataclass(found) and isinstance(found, type)):
        raise ValueError(f"{where}.{TARGET} must name a frozen dataclass, got {named[TARGET]!r}")
    known = {field.name for field in fields(found)}
    given = {key: value for key, value in named.items() if key != TARGET}
    extra = {key: value for key, value in context.items() if key in known and key not in given}
    return build_value(cast(type[Any], found), {**given, **extra}, {}, where)


def find_new_home(target: str) -> str | None:
    """Returns where a class of ours stands that has moved; None if the target never was one.

    The home of a class is what the options of ``conf/`` say.

    Args:
        target: A dotted path that names no class, such as an earlier version's.
    """
    if target.partition(".")[0] not in OURS:
        return None
    name = target.rpartition(".")[2]
    text = "\n".join(file.read_text() for file in sorted(CONF.rglob("*.yaml")))
    homes = re.findall(rf"^ *{TARGET}: *([\w.]+)", text, re.MULTILINE)
    now = RENAMED.get(name, name)
    return next((home for home in homes if home.rpartition(".")[2] == now), None)
