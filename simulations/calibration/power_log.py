"""Reads a user's own power log, samples of a device, into runs of one phase each.

Columns of the CSV file, in any order; one row per sample, in order of time:

    time_s    seconds since any origin; a row holds until the time of the next one, and the last
              row only ends the log
    power_w   power of the whole device
    phase     idle, forward, backward, train, prefill, decode, read, receive or send
    flop      FLOP done (forward, backward, train, prefill)
    tokens    tokens handled, with `model`: instead of flop, or of bytes where tokens are decoded
    model     `pocket`, or the folder of a Llama-like model
    bytes     bytes moved: weights and cache (decode), storage (read), network (receive, send)

A run is a stretch of rows of one phase and model. Amounts are summed over its rows, so a total may
stand in any one of them. Separate runs of one phase by idle rows.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

REQUIRED = ("time_s", "power_w", "phase")
COLUMNS = (*REQUIRED, "flop", "tokens", "model", "bytes")
COMPUTING = ("forward", "backward", "train", "prefill")
MOVING = ("decode", "read", "receive", "send")
PHASES = ("idle", *COMPUTING, *MOVING)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSample:
    """One row of a log, with the line on which it stands."""

    line: int
    time_s: float
    power_w: float
    phase: str
    flop: float
    tokens: float
    model: str
    moved_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRun:
    """A stretch of one phase: what it took and what was done in it."""

    line: int
    phase: str
    model: str
    time_s: float
    energy_j: float
    flop: float
    tokens: float
    moved_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLog:
    """A log as runs in order, and the count of its rows."""

    name: str
    rows: int
    runs: tuple[PowerRun, ...]


def read_power_log(path: Path) -> PowerLog:
    """Returns the runs of a log.

    Raises:
        ValueError: Naming file, line, column and rule, if a row or a run breaks one.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
        reader = csv.DictReader(lines)
        _check_header(path.name, reader.fieldnames or ())
        samples = [_sample(path.name, reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name} must be CSV in UTF-8: {error}") from error
    if len(samples) < 2:
        raise ValueError(f"{path.name} must have at least 2 rows, got {len(samples)}")
    for before, after in pairwise(samples):
        if after.time_s <= before.time_s:
            rule = f"time_s must be above the {before.time_s} s of the row before"
            raise ValueError(f"{path.name} line {after.line}: {rule}, got {after.time_s}")
    runs = _runs(samples)
    for run in runs:
        _check_run(path.name, run)
    return PowerLog(name=path.name, rows=len(samples), runs=tuple(runs))


def _check_header(name: str, header: Sequence[str]) -> None:
    missing = [column for column in REQUIRED if column not in header]
    unknown = [column for column in header if column not in COLUMNS]
    if missing or unknown:
        rule = f"columns must be {', '.join(REQUIRED)} and any of {', '.join(COLUMNS[3:])}"
        raise ValueError(f"{name} line 1: {rule}; missing {missing}, unknown {unknown}")


def _sample(name: str, line: int, row: Mapping[str, Any]) -> PowerSample:
    where = f"{name} line {line}"
    if None in row or None in row.values():  # how csv tells of too many and too few
        raise ValueError(f"{where}: a row must have as many fields as the header")
    phase = row["phase"].strip()
    if phase not in PHASES:
        raise ValueError(f"{where}: phase must be one of {', '.join(PHASES)}, got {phase!r}")
    return PowerSample(
        line=line,
        time_s=_number(where, "time_s", row["time_s"], "s"),
        power_w=_number(where, "power_w", row["power_w"], "W"),
        phase=phase,
        flop=_number(where, "flop", row.get("flop") or "0", "FLOP"),
        tokens=_number(where, "tokens", row.get("tokens") or "0", "tokens"),
        model=(row.get("model") or "").strip(),
        moved_bytes=_number(where, "bytes", row.get("bytes") or "0", "bytes"),
    )


def _number(where: str, column: str, text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{where}: {column} must be a number >= 0 {unit}, got {text!r}")
    return value


def _runs(samples: Iterable[PowerSample]) -> list[PowerRun]:
    """Returns the runs; the last sample ends the one before it."""
    spans = pairwise(samples)
    grouped = groupby(spans, key=lambda span: (span[0].phase, span[0].model))
    return [_run(phase, model, list(stretch)) for (phase, model), stretch in grouped]


def _run(phase: str, model: str, spans: Sequence[tuple[PowerSample, PowerSample]]) -> PowerRun:
    rows = [row for row, _ in spans]
    return PowerRun(
        line=rows[0].line,
        phase=phase,
        model=model,
        time_s=spans[-1][1].time_s - rows[0].time_s,
        energy_j=math.fsum(row.power_w * (after.time_s - row.time_s) for row, after in spans),
        flop=math.fsum(row.flop for row in rows),
        tokens=math.fsum(row.tokens for row in rows),
        moved_bytes=math.fsum(row.moved_bytes for row in rows),
    )


def _check_run(name: str, run: PowerRun) -> None:
    """Raises ValueError if a run does not say how much was done in it."""
    has_tokens = run.tokens > 0 and bool(run.model)
    done, rule = {
        "idle": (True, ""),
        "decode": (run.moved_bytes > 0 or has_tokens, "bytes, or tokens and model"),
        **dict.fromkeys(COMPUTING, (run.flop > 0 or has_tokens, "flop, or tokens and model")),
        **dict.fromkeys(("read", "receive", "send"), (run.moved_bytes > 0, "bytes")),
    }[run.phase]
    if not done:
        told = f"the run of {run.phase} that begins here must have {rule}, got none"
        raise ValueError(f"{name} line {run.line}: {told}")
