r"""Traces: windows read from records of real phones, in files that the user brings.

Nothing is shipped and nothing is unpickled. Two formats:

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

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fleettune.fleet.availability import HOUR_S, NIGHT_S, Window
from fleettune.fleet.trace_files import READERS, Behaviour
from fleettune.seeds import Purpose, stream

CONVERT = (
    "FedScale publishes its traces as a pickle; convert it once, where you trust it, with "
    "json.dump(pickle.load(open('client_behave_trace', 'rb')), open('trace.json', 'w')), or to "
    "CSV with the columns client,active,inactive,finish_time, both lists separated by spaces"
)
"""What to do with a file that is not read here."""
_PICKLES = (".pkl", ".pickle")


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
    """Returns the longest stretch of touching intervals in [begins_s, begins_s + night_s)."""
    ends_s, period_s = begins_s + night_s, client.period_s
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
