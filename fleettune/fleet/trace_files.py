"""Trace files: FedScale's and FLASH's records of phones, read and checked; `traces` says how.

Every rule is checked for every client when the file is read; nothing is skipped or repaired.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400.0
COLUMNS = ("client", "active", "inactive", "finish_time")
"""Columns of FedScale's traces as CSV."""

_MOST_S = 1e12
_CHARGING = {"battery_charged_on": True, "battery_charged_off": False}
_LOCKED = {"screen_lock": True, "screen_unlock": False}
_WIFI = {"wifi": True} | dict.fromkeys(("unknown", "2g", "3g", "4g", "5g"), False)
_IGNORED = ("screen_on", "screen_off")
STATES = (*_CHARGING, *_LOCKED, *_WIFI, *_IGNORED)
"""States of FLASH's traces, in lower case, besides percentages."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Behaviour:
    """When one recorded client was eligible.

    Attributes:
        intervals: [intervals, 3] floats in order of time: start and end in seconds of the trace's
            clock, whose 0 is a midnight, and state of charge at the start, NaN where not recorded.
        period_s: After which the trace begins again.
    """

    intervals: NDArray[np.float64]
    period_s: float


Reader: TypeAlias = Callable[[str], tuple[Behaviour, ...]]


def fedscale_json(path: str) -> tuple[Behaviour, ...]:
    """Returns the clients of a FedScale trace in JSON, in the file's order."""
    clients: list[Behaviour] = []
    for name, record in _json(path).items():
        where = f"client {name!r} of {path!r}"
        clients.append(_fedscale(_mapping(record, where), where))
    return tuple(clients)


def fedscale_csv(path: str) -> tuple[Behaviour, ...]:
    """Returns the clients of a FedScale trace in CSV, in the file's order."""
    clients: list[Behaviour] = []
    for line, row in _rows(path):
        where = f"line {line} of {path!r}"
        record = {name: [_parsed(text) for text in row[name].split()] for name in COLUMNS[1:]}
        if len(record["finish_time"]) != 1:
            raise ValueError(f"{where}: finish_time must be one number, got {row['finish_time']!r}")
        clients.append(_fedscale(record | {"finish_time": record["finish_time"][0]}, where))
    return tuple(clients)


def flash_json(path: str) -> tuple[Behaviour, ...]:
    """Returns the clients of a FLASH trace, in the file's order."""
    clients: list[Behaviour] = []
    for name, record in _json(path).items():
        where = f"client {name!r} of {path!r}"
        messages = _mapping(record, where).get("messages")
        if not isinstance(messages, str):
            raise ValueError(f"{where}: messages must be a text of lines, got {messages!r}")
        clients.append(_flash(messages, where))
    return tuple(clients)


READERS: Mapping[str, Mapping[str, Reader]] = {
    "fedscale": {".json": fedscale_json, ".csv": fedscale_csv},
    "flash": {".json": flash_json},
}
"""Reader by format and ending of the file."""


def _rows(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    with Path(path).open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, restval="")
        try:
            names = rows.fieldnames or ()
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise ValueError(
                    f"line 1 of {path!r} must name the columns {','.join(COLUMNS)}, got "
                    f"{','.join(names) or 'nothing'}: add {missing[0]}"
                )
            for row in rows:
                yield rows.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"line {rows.line_num + 1} of {path!r} must be CSV in UTF-8: {error}"
            ) from error


def _json(path: str) -> Mapping[str, object]:
    try:
        read: object = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} of {path!r} must be JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path!r} must be UTF-8: {error}") from error
    return _mapping(read, repr(path))


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object with named members, got {str(value)[:60]!r}")
    return cast("dict[str, object]", value)


def _number(value: object, name: str, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_S:
        return float(value)
    raise ValueError(f"{where}: {name} must be finite seconds, got {value!r}")


def _parsed(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _fedscale(record: Mapping[str, object], where: str) -> Behaviour:
    period_s = _number(record.get("finish_time"), "finish_time", where)
    if period_s <= 0:
        raise ValueError(f"{where}: finish_time must be > 0 s, got {period_s}")
    starts, ends = (_seconds(record.get(name), name, where) for name in ("active", "inactive"))
    if len(starts) != len(ends):
        raise ValueError(
            f"{where}: active and inactive must be equally long, got {len(starts)} and {len(ends)}"
        )
    edges = [0.0, *(edge for pair in zip(starts, ends, strict=True) for edge in pair), period_s]
    for before, after in pairwise(edges):
        if before > after:
            raise ValueError(
                f"{where}: active and inactive must take turns, rising from 0 to finish_time "
                f"({period_s:g} s), got {after:g} after {before:g}"
            )
    return _behaviour([(s, e, math.nan) for s, e in zip(starts, ends, strict=True)], period_s)


def _seconds(value: object, name: str, where: str) -> list[float]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: {name} must be a list of seconds, got {value!r}")
    return [_number(item, name, where) for item in cast("list[object]", value)]


def _flash(messages: str, where: str) -> Behaviour:
    lines = enumerate(messages.splitlines(), start=1)
    events = [_event(line, f"{where}, line {n} of messages") for n, line in lines if line.strip()]
    if not events:
        raise ValueError(f"{where}: messages must hold at least one line, got none")
    events.sort(key=lambda event: event[0])  # stable: equal times keep the file's order
    midnight = events[0][0].replace(hour=0, minute=0, second=0)
    length_s = (events[-1][0] - midnight).total_seconds()
    period_s = DAY_S * max(1, math.ceil(length_s / DAY_S))
    timed = [((at - midnight).total_seconds(), state) for at, state in events]
    return _behaviour(_eligible(timed), period_s)


def _event(line: str, where: str) -> tuple[datetime, str]:
    time, tab, state = line.strip().partition("\t")
    try:
        at = datetime.fromisoformat(time.strip()).replace(tzinfo=UTC)
    except ValueError:
        at = None
    if not tab or at is None or len(time.strip()) != len("YYYY-mm-dd HH:MM:SS"):
        raise ValueError(f"{where} must be 'YYYY-mm-dd HH:MM:SS<tab>state', got {line!r}")
    state = state.strip().lower()
    if state not in STATES and _charge(state) is None:
        raise ValueError(f"{where}: state must be one of {STATES} or 0% to 100%, got {state!r}")
    return at, state


def _charge(state: str) -> float | None:
    try:
        charge = float(state.removesuffix("%")) / 100
    except ValueError:
        return None
    return charge if state.endswith("%") and 0 <= charge <= 1 else None


def _eligible(events: Sequence[tuple[float, str]]) -> list[tuple[float, float, float]]:
    """Returns (start, end, state of charge) of the stretches locked, on Wi-Fi and charging."""
    is_charging = is_locked = is_wifi = False
    soc, opened = math.nan, None
    intervals: list[tuple[float, float, float]] = []
    for at_s, state in events:
        is_charging = _CHARGING.get(state, is_charging)
        is_locked = _LOCKED.get(state, is_locked)
        is_wifi = _WIFI.get(state, is_wifi)
        charge = _charge(state)
        soc = soc if charge is None else charge
        ready = is_charging and is_locked and is_wifi
        if ready and opened is None:
            opened = (at_s, soc)
        elif opened is not None and not ready:
            intervals.append((opened[0], at_s, opened[1]))
            opened = None
    return intervals


def _behaviour(intervals: Sequence[tuple[float, float, float]], period_s: float) -> Behaviour:
    found = np.array(intervals, dtype=np.float64).reshape(-1, 3)
    return Behaviour(intervals=found[found[:, 1] > found[:, 0]], period_s=period_s)
