"""Makes a row per arm, device and round of what devices report and what the observer saw.

Rows hold simulated quantities only and are sorted before they are written, so the same experiment
gives the same bytes whatever the order of the replies. Where rows stay until then is the choice of
the run: its checkpoint, or this process's memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from flwr.app import RecordDict

from fleettune.cost.ledger import Stage
from fleettune.cost.workload import Workload
from fleettune.messages.flower_records import decode_statistics, take_observation
from fleettune.messages.report import Observation, Statistics
from fleettune.whole_files import write_whole
from simulations.results.device_means import STAGES

SCHEMA: dict[str, Any] = {
    "arm": pl.String,
    "device": pl.Int64,
    "round": pl.Int64,
    "profile": pl.String,
    "attendance": pl.String,
    "release": pl.Int64,
    "decision": pl.String,
    "reason": pl.String,
    "payload": pl.String,
    "drift": pl.Float64,
    "strength": pl.Float64,
    "score": pl.Float64,
    "canary_before": pl.Float64,
    "canary_worse": pl.Float64,
    "canary_after": pl.Float64,
    "explored": pl.Int64,
    "propensity": pl.Float64,
    "eval_exchanges": pl.Int64,
    "nll": pl.Float64,
    "exact_match": pl.Float64,
    "approval": pl.Float64,
    "mae": pl.Float64,
    "retune_gain": pl.Float64,
    "rouge1": pl.Float64,
    "unseen_exchanges": pl.Int64,
    "exact_match_unseen": pl.Float64,
    "buffer_exchanges": pl.Int64,
    "buffer_bytes": pl.Int64,
    "stored_bytes": pl.Int64,
    "tune_steps": pl.Int64,
    "train_tokens": pl.Int64,
    "cache_bytes": pl.Int64,
    "over_budget": pl.Int64,
    "peak_bytes": pl.Int64,
    "synthesised": pl.Int64,
    "synthetic_kept": pl.Int64,
    "arrived": pl.Int64,
    "accepted": pl.Int64,
    "asked": pl.Int64,
    "start_s": pl.Float64,
    "night_s": pl.Float64,
    "soc": pl.Float64,
    "soc_after": pl.Float64,
    "energy_j": pl.Float64,
    "time_s": pl.Float64,
    "work_flop": pl.Float64,
    "down_bytes": pl.Float64,
    "up_bytes": pl.Float64,
    **{f"energy_j_{stage}": pl.Float64 for stage in STAGES},
}
"""Columns of ``rows.parquet``."""

START_SCHEMA: dict[str, Any] = {
    "start_entries": pl.Int64,
    "start_right": pl.Int64,
    "start_nll": pl.Float64,
    "start_j": pl.Float64,
    "finding_s": pl.Float64,
    "start_bytes": pl.Float64,
}
"""Columns behind those, where a run offered a catalogue."""

WORK_SCHEMA: dict[str, Any] = {
    "arm": pl.String,
    "device": pl.Int64,
    "round": pl.Int64,
    "stage": pl.String,
    "phase": pl.String,
    "flop": pl.Float64,
    "moved_bytes": pl.Float64,
    "bursts": pl.Float64,
}
"""Columns of ``work.parquet``: what each row's joules were priced from."""
_KEY = ("arm", "device", "round")
log = logging.getLogger(__name__)


ROWS_AT_ONCE = 20_000


def make_row(
    arm: str, statistics: Statistics, seen: Observation | None, workload: Workload
) -> dict[str, Any]:
    """Returns one row of ``rows.parquet``, and under ``work`` those of ``work.parquet``."""
    observed = asdict(seen or Observation(exchanges=0))
    observed["eval_exchanges"] = observed.pop("exchanges")
    named = asdict(statistics)
    outcome, _ = named.pop("outcome"), named.pop("ledger")
    ledger = statistics.ledger
    stages = {f"energy_j_{stage}": ledger.of(Stage(stage)).energy_j for stage in STAGES}
    work = [
        [stage, phase, amount.flop, amount.moved_bytes, amount.bursts]
        for stage, phase, amount in workload.entries
    ]
    total = asdict(ledger.total())
    return {"arm": arm, **outcome, **named, **observed, **total, **stages, "work": work}


class Rows(Protocol):
    """Where rows stay until the run is over."""

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Keeps one row."""
        ...

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """Returns all rows."""
        ...


@dataclass(slots=True)
class MemoryRows:
    """Rows in this process's memory."""

    kept: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Keeps one row."""
        self.kept.append(row)

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """Returns all rows, in the order of their arrival."""
        return self.kept


@dataclass(frozen=True, slots=True)
class Recorder:
    """Makes rows of replies and takes the observer's records out of them."""

    rows: Rows = field(default_factory=MemoryRows)

    def __call__(self, arm: str, content: RecordDict, device: int | None = None) -> None:
        """Notes one reply; one whose statistics the server rejects makes no row.

        Args:
            arm: Its arm.
            content: Its records; the observer's are taken out.
            device: Whose it is; None where the grid does not know.
        """
        try:
            seen, workload = take_observation(content)
            statistics = decode_statistics(content)
        except ValueError as error:
            log.warning("a reply of arm %s makes no row: %s", arm, error)
            return
        if device is None or statistics.outcome.device == device:
            self.rows.add_row(make_row(arm, statistics, seen, workload))
        else:
            named = statistics.outcome.device
            log.warning("device %d of arm %s names device %d: no row", device, arm, named)

    def frame(self) -> pl.DataFrame:
        """Returns all rows in the order of arm, device and round."""
        schema = SCHEMA | START_SCHEMA
        bare = ({name: one[name] for name in schema} for one in self.rows.rows())
        found = _frame(bare, schema).sort(_KEY)
        offered = found["start_entries"].null_count() < found.height
        return found if offered else found.select(tuple(SCHEMA))

    def work(self) -> pl.DataFrame:
        """Returns what the rows' joules were priced from, in the order of the rows."""
        key = tuple(WORK_SCHEMA)
        entries = (
            dict(zip(key, (*(one[name] for name in _KEY), *entry), strict=True))
            for one in self.rows.rows()
            for entry in one["work"]
        )
        return _frame(entries, WORK_SCHEMA).sort(_KEY, maintain_order=True)


def _frame(rows: Iterable[Mapping[str, Any]], schema: dict[str, Any]) -> pl.DataFrame:
    parts = [pl.DataFrame(part, schema=schema) for part in _parts(rows)]
    return pl.concat(parts, rechunk=True) if parts else pl.DataFrame(schema=schema)


def _parts(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yields rows in lists of bounded length, which as dicts take many times a frame's memory."""
    remaining = iter(rows)
    while part := list(islice(remaining, ROWS_AT_ONCE)):
        yield part


def write_parquet(frame: pl.DataFrame, file: Path) -> None:
    """Writes a frame as Parquet, the same bytes for the same rows.

    Raises:
        OSError: If it cannot be written; no part of it is there then.
    """
    content = BytesIO()
    frame.write_parquet(content, compression="zstd", statistics=False)
    write_whole(file, content.getvalue())
