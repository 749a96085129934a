r"""Traces: windows read from FedScale's and FLASH's records of phones, in files of the user.

Nothing is shipped and nothing is unpickled. Every rule is checked for every client when the file is
read; nothing is skipped or repaired. Two formats:

``fedscale``, FedScale's client_behave_trace, as JSON (client -> its record) or CSV (one client a
row). A record has ``active`` and ``inactive``, the starts and ends of the intervals in which the
client is eligible, in seconds, and ``finish_time``, after which it begins again; whatever else it
has is ignored. CSV has the columns ``client,active,inactive,finish_time``, both lists separated by
spaces. A client is eligible at t if t modulo finish_time lies in one of its intervals.

``flash``, FLASH's state_traces.json: guid -> {"messages": lines of "YYYY-mm-dd HH:MM:SS\tstate"}.
Eligible means locked, on Wi-Fi and charging, each as last seen; none of them before it is seen, and
no interval is left open at the end. A percentage is the state of charge. A trace repeats after
whole days, counted from the midnight before its first line, so that its nights stay nights (FLASH
repeats it after its exact length).

Left out: time zones, and what trace clients and our devices have in common: devices draw theirs.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fleettune.fleet.availability import HOUR_S, NIGHT_S, Window
from fleettune.records import read_json
from fleettune.seeds import Purpose, stream

CONVERT = (
    "FedScale publishes its traces as a pickle; convert it once, where you trust it, with "
    "json.dump(pickle.load(open('client_behave_trace', 'rb')), open('trace.json', 'w')), or to "
    "CSV with the columns client,active,inactive,finish_time, both lists separated by spaces"
)
"""What to do with a file that is not read here."""
_PICKLES = (".pkl", ".pickle")
DAY_S = 86_400.0
COLUMNS = ("client", "active", "inactive", "finish_time")
"""Columns of FedScale's traces as CSV."""
_MOST_S = 1e12
_MOST_TURNS = 1_000_000
"""Intervals that are looked at for one night."""
_CHARGING = {"battery_charged_on": True, "battery_charged_off": False}
_LOCKED = {"screen_lock": True, "screen_unlock": False}
_WIFI = {"wifi": True} | dict.fromkeys(("unknown", "2g", "3g", "4g", "5g"), False)
_IGNORED = ("screen_on", "screen_off")
STATES = (*_CHARGING, *_LOCKED, *_WIFI, *_IGNORED)
"""States of FLASH's traces, in lower case, besides percentages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Availability as recorded: every device follows one recorded client, drawn by the seed.

    Night n is the n-th stretch of `night_s` in the trace's time from `begins_h` on. Its window is
    the longest eligible stretch, touching intervals being one, cut at the night's edges. Nobody
    foresees its end: a trace does not tell a morning from an interruption, so `Window.stops_s`
    stays None, and work that needs longer is cut off by the window's end.

    Attributes:
        path: The file.
        format: ``fedscale`` or ``flash``.
        soc: State of charge at the opening where the trace does not say (tier E).
        begins_h: Hour of the trace's clock at which a round begins; 12 keeps nights whole. Time 0
            of a FedScale trace is taken for midnight (E).
        night_s: Length of a round.
    """

    path: str
    format: str
    soc: float
    begins_h: float
    night_s: float = NIGHT_S

    def __post_init__(self) -> None:
        if self.format not in READERS:
            raise ValueError(f"format must be one of {sorted(READERS)}, got {self.format!r}")
        if Path(self.path).suffix.lower() in _PICKLES:
            raise ValueError(
                f"path must not be a pickle, which can run any code, got {self.path!r}: {CONVERT}"
            )
        if Path(self.path).suffix.lower() not in READERS[self.format]:
            raise ValueError(
                f"path must end in {' or '.join(READERS[self.format])} for format {self.format}, "
                f"got {self.path!r}: {CONVERT}"
            )
        if not 0 <= self.soc <= 1:
            raise ValueError(f"soc must be from 0 to 1, got {self.soc}")
        if not 0 <= self.begins_h < 24:
            raise ValueError(f"begins_h must be >= 0 h and < 24 h, got {self.begins_h}")
        if not 0 < self.night_s < math.inf:
            raise ValueError(f"night_s must be finite and > 0 s, got {self.night_s}")

    def check(self) -> None:
        """Reads the whole file, once per process.

        Raises:
            ValueError: Naming file, line or client, rule and value.
        """
        _behaviours(self.path, self.format)

    def window(self, seed: int, device: int, night: int) -> Window:
        """Returns the longest eligible stretch of the night of the device's trace client.

        Raises:
            ValueError: As `check`.
        """
        clients = _behaviours(self.path, self.format)
        drawn = stream(seed, Purpose.AVAILABILITY, device).integers(len(clients))
        begins_s = self.begins_h * HOUR_S + night * self.night_s
        return _longest(clients[int(drawn)], begins_s, self.night_s, self.soc)


@lru_cache(maxsize=2)
def _behaviours(path: str, format_: str) -> tuple[Behaviour, ...]:
    if not Path(path).is_file():
        raise ValueError(f"path must name a file that exists, got {path!r}: correct it")
    clients = READERS[format_][Path(path).suffix.lower()](path)
    if not clients:
        raise ValueError(f"{path!r} must hold at least one client, got none")
    return clients


def _longest(client: Behaviour, begins_s: float, night_s: float, soc: float) -> Window:
    """Returns the longest stretch of touching intervals in [begins_s, begins_s + night_s).

    Raises:
        ValueError: If the client begins again too often within it.
    """
    ends_s, period_s = begins_s + night_s, client.period_s
    if not night_s / period_s * max(1, len(client.intervals)) < _MOST_TURNS:
        raise ValueError(
            f"a trace of {period_s:g} s with {len(client.intervals)} intervals begins again too "
            f"often in a night of {night_s:g} s: leave that client out"
        )
    first, last = int(begins_s // period_s), int(ends_s // period_s)
    shifts = period_s * np.arange(first, last + 1)
    starts = np.maximum(np.add.outer(shifts, client.intervals[:, 0]).ravel(), begins_s)
    ends = np.minimum(np.add.outer(shifts, client.intervals[:, 1]).ravel(), ends_s)
    charges = np.tile(client.intervals[:, 2], len(shifts))
    inside = ends > starts
    starts, ends, charges = starts[inside], ends[inside], charges[inside]
    if not len(starts):
        return Window(start_s=0.0, length_s=0.0, soc=soc)
    opens = np.flatnonzero(np.r_[True, starts[1:] > ends[:-1]])
    lengths = ends[np.r_[opens[1:] - 1, -1]] - starts[opens]
    longest = int(np.argmax(lengths))
    opened = opens[longest]
    return Window(
        start_s=float(starts[opened] - begins_s),
        length_s=float(lengths[longest]),
        soc=soc if np.isnan(charges[opened]) else float(charges[opened]),
    )


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
    return _mapping(read_json(Path(path).read_bytes(), repr(path)), repr(path))


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
