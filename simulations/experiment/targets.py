"""One YAML file is one constructor call: ``_target_`` names it, the other keys are its fields."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from fleettune.records import checked

TARGET = "_target_"


def configured(node: object, where: str, **context: object) -> Any:  # noqa: ANN401 - any frozen value
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
        raise ValueError(
            f"{where}.{TARGET} must name an importable class, got {named[TARGET]!r}: {error}; "
            "is its folder on PYTHONPATH?"
        ) from error
    if not (is_dataclass(found) and isinstance(found, type)):
        raise ValueError(f"{where}.{TARGET} must name a frozen dataclass, got {named[TARGET]!r}")
    known = {field.name for field in fields(found)}
    given = {key: value for key, value in named.items() if key != TARGET}
    extra = {key: value for key, value in context.items() if key in known and key not in given}
    return checked(cast(type[Any], found), {**given, **extra}, {}, where)
