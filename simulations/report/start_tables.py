"""Starts: what a catalogue saved devices that took up their first patch, and how it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from simulations.report.tables import energy, number, with_interval
from simulations.results.derived_columns import STARTED_J, with_derived
from simulations.results.device_means import Floats, mean_with_interval

Cells = tuple[list[str], list[list[str]]]
START_NOTE = (
    "First tunes of devices while a catalogue was on offer, by arm, and how they differ from those "
    "of the reference on the same devices: joules of finding a start, probing and tuning above "
    "idle (simulated, central coefficients), and nats per token on the day after. Lower is better. "
    "Intervals over devices. Joined: devices that came to the fleet after its first round."
)
CATALOGUE_NOTE = (
    "What each entry of the first catalogue on offer is, against the mean of all: the strongest "
    "words first. Coordinates have no unit. Which words there are was found on the server."
)


def start_cells(rows: Mapping[str, pl.DataFrame], reference: str) -> Cells:
    """Returns one row of cells per arm and group of devices; none where nothing was offered.

    Args:
        rows: Rows of every arm, as `simulations.results.device_means.split_arms` gives them.
        reference: The arm that savings are measured against.
    """
    columns = ["arm", "devices", "first tunes", "one entry", "two entries", "steps"]
    columns += ["nats before any step", "nats after", "finding a start, per device"]
    columns += ["joules saved per device [95 %]", "nats against the reference [95 %]"]
    started = {arm: _first_tunes(part) for arm, part in rows.items()}
    if not any(part.height for part in started.values()):
        return columns, []
    first = min(int(part["round"].to_numpy().min()) for part in rows.values() if part.height)
    found: list[list[str]] = []
    for arm, part in started.items():
        for group, chosen in (("all", part), ("joined", _joined(part, rows[arm], first))):
            if chosen.height:
                found.append(_cells(arm, group, chosen, started[reference]))
    return columns, found


def catalogue_cells(entries: Sequence[Mapping[str, Any]]) -> Cells:
    """Returns every entry of a run's first catalogue in words."""
    columns = ["entry", "from", "reads"]
    first = [entry for entry in entries if entry["release"] == entries[0]["release"]]
    return columns, [[entry["entry"], entry["origin"], entry["reads"]] for entry in first]


def _first_tunes(rows: pl.DataFrame) -> pl.DataFrame:
    if "start_entries" not in rows.columns:
        return rows.head(0)
    return with_derived(rows).filter(pl.col("start_entries").is_not_null())


def _joined(started: pl.DataFrame, rows: pl.DataFrame, first: int) -> pl.DataFrame:
    """Returns the first tunes of devices that have no row in the first round."""
    there = rows.filter(pl.col("round") == first)["device"].to_list()
    return started.filter(~pl.col("device").is_in(there))


def _cells(arm: str, group: str, part: pl.DataFrame, against: pl.DataFrame) -> list[str]:
    entries = part["start_entries"]
    joules, nats = _differences(part, against)
    return [
        arm,
        group,
        f"{part.height:,}",
        *(f"{100 * int((entries == count).sum()) / part.height:.0f} %" for count in (1, 2)),
        number(_mean(part, "tune_steps"), ".1f"),
        number(_mean(part, "start_nll")),
        number(_mean(part, "nll")),
        energy(_mean(part, "start_j")),
        with_interval(mean_with_interval(-joules, seed=0), ".3g"),
        with_interval(mean_with_interval(nats, seed=0), "+.3f"),
    ]


def _differences(part: pl.DataFrame, against: pl.DataFrame) -> tuple[Floats, Floats]:
    """Returns joules and nats of an arm's first tunes minus the reference's, by device."""
    both = part.join(against.unique("device", keep="first"), on="device", suffix="_reference")

    def minus(column: str) -> Floats:
        found = both.select((pl.col(column) - pl.col(f"{column}_reference")).alias("x"))["x"]
        return found.cast(pl.Float64).fill_null(float("nan")).to_numpy()

    return minus(STARTED_J), minus("nll")


def _mean(rows: pl.DataFrame, column: str) -> float | None:
    known = rows[column].drop_nulls().cast(pl.Float64).to_numpy()
    return float(np.mean(known)) if len(known) else None
