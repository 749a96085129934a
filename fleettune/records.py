"""Frozen values as plain records and back, with every name and type checked.

Configuration files and messages name a type and its fields; they are matched against closed types
here and never imported by name. Errors say which field, what was expected, and what came.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from reprlib import Repr
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
W = TypeVar("W", bound=StrEnum)

Record = Mapping[str, Any]
Types = Mapping[str, type]

TYPE = "type"
OMIT_DEFAULT: Mapping[str, bool] = {"omit_default": True}
"""Metadata of a field that a record leaves out while it holds its default."""
_SHOWN = Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 200


def read_json(text: str | bytes, where: str) -> Any:  # noqa: ANN401 - any JSON
    """Returns what JSON text holds; errors name `where` it stood.

    Raises:
        ValueError: If it is no JSON in UTF-8, or nested too deeply to be read.
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        told = str(error)[:200]
        raise ValueError(f"{where} must be JSON in UTF-8, is not: {told}") from error


def read_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Returns what JSON text holds, as `read_json`.

    Raises:
        ValueError: As there, or if it is no object.
    """
    found = read_json(text, where)
    if not isinstance(found, dict):
        raise ValueError(f"{where} must hold an object, got {type(found).__name__}")
    return cast(dict[str, Any], found)


def to_record(value: object) -> Any:  # noqa: ANN401 - JSON: mapping, sequence or scalar
    """Returns a frozen dataclass as plain mappings, lists and scalars, its type by name."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {
            field.name: to_record(getattr(value, field.name))
            for field in fields(value)
            if not (
                field.metadata.get("omit_default") and getattr(value, field.name) == field.default
            )
        }
        return {TYPE: type(value).__name__, **named}
    if isinstance(value, tuple | list):
        return [to_record(item) for item in cast(Sequence[object], value)]
    if isinstance(value, Mapping):
        named = cast(Mapping[str, object], value)
        return {key: to_record(item) for key, item in named.items()}
    return value


def from_record(record: object, types: Types, where: str) -> Any:  # noqa: ANN401 - one of `types`
    """Returns the value that a record describes.

    Raises:
        ValueError: If its type is not among `types`, or a field is unknown, missing or mistyped.
    """
    named: Record = cast(Record, record) if isinstance(record, Mapping) else {}
    name = named.get(TYPE)
    if not isinstance(name, str) or name not in types:
        shown = _SHOWN.repr(name if isinstance(record, Mapping) else record)
        raise ValueError(f"{where} must be one of {sorted(types)}, got {shown}")
    given = {key: value for key, value in named.items() if key != TYPE}
    return cast(Any, build_value(types[name], given, types, where))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def build_value(cls: type[T], given: Record, types: Types, where: str) -> T:
    """Returns ``cls(**given)`` after checking every field's name and type.

    Raises:
        ValueError: Naming the field, the expected type and the value.
    """
    hints = _hints(cls)
    own = [field for field in fields(cast(Any, cls)) if field.init]
    known = {field.name for field in own}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"{where}.{unknown[0]} is not a known key; {where} has {sorted(known)}")
    missing = [
        field.name
        for field in own
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where}.{missing[0]} must be given; it has no default")
    values = {
        name: _typed(hints[name], value, types, f"{where}.{name}") for name, value in given.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        told = str(error)
        raise ValueError(told if told.startswith(where) else f"{where}: {told}") from error


def _typed(hint: Any, value: Any, types: Types, where: str) -> Any:  # noqa: ANN401 - any type
    if hint is Any:
        return value
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _union(get_args(hint), value, types, where)
    if origin is tuple and isinstance(value, list | tuple):
        return _tuple(get_args(hint), cast(Sequence[Any], value), types, where)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        item = get_args(hint)[1]
        named = cast(Mapping[str, Any], value)
        return {key: _typed(item, one, types, f"{where}.{key}") for key, one in named.items()}
    if isinstance(value, Mapping) and (TYPE in value or is_dataclass(hint)):
        value = _built(hint, cast(Record, value), types, where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return read_word(hint, cast(object, value), where)
    if _fits(hint, value):
        return float(cast(float, value)) if hint is float else cast(Any, value)
    raise ValueError(f"{where} must be {_name(hint)}, got {_SHOWN.repr(value)}")


def read_word(words: type[W], value: object, where: str) -> W:
    """Returns a member of a closed set of words.

    Raises:
        ValueError: If the value is none of them.
    """
    try:
        return words(value)
    except ValueError as error:
        known = [member.value for member in words]
        raise ValueError(f"{where} must be one of {known}, got {_SHOWN.repr(value)}") from error


def _tuple(hints: Sequence[Any], items: Sequence[Any], types: Types, where: str) -> tuple[Any, ...]:
    if hints[-1] is Ellipsis:
        hints = [hints[0]] * len(items)
    if len(hints) != len(items):
        raise ValueError(f"{where} must have {len(hints)} entries, got {len(items)}")
    pairs = enumerate(zip(hints, items, strict=True))
    return tuple(_typed(hint, one, types, f"{where}[{i}]") for i, (hint, one) in pairs)


def _built(hint: Any, record: Record, types: Types, where: str) -> Any:  # noqa: ANN401 - any type
    if TYPE in record:
        return from_record(record, types, where)
    return build_value(cast(type[Any], hint), record, types, where)


def _union(options: Sequence[Any], value: Any, types: Types, where: str) -> Any:  # noqa: ANN401
    if value is None and NoneType in options:
        return None
    real = [option for option in options if option is not NoneType]
    if len(real) == 1:
        return _typed(real[0], value, types, where)
    if isinstance(value, Mapping) and TYPE in value and not all(map(is_dataclass, real)):
        # protocols fit any type that is known here, so a fault in the value is told as it is
        value = from_record(cast(Record, value), types, where)
    for option in real:
        try:
            return _typed(option, value, types, where)
        except ValueError:
            continue
    names = " or ".join(_name(option) for option in options)
    raise ValueError(f"{where} must be {names}, got {_SHOWN.repr(value)}")


def _fits(hint: Any, value: Any) -> bool:  # noqa: ANN401 - any type
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        is_held = isinstance(value, int) and abs(value) <= sys.float_info.max
        return is_held or isinstance(value, float)
    if hint in (int, str, bool):
        return isinstance(value, hint)
    if is_dataclass(hint):
        return isinstance(value, cast(type[Any], hint))
    # a value that was built already, for a field whose type is a protocol
    return get_origin(hint) is None and is_dataclass(value) and not isinstance(value, type)


def _name(hint: Any) -> str:  # noqa: ANN401 - any type
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if hint is NoneType:
        return "null"
    return words.get(hint) or getattr(hint, "__name__", str(hint))
