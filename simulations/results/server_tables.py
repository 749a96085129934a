"""Tables of what the server knows: its rounds, releases, the devices' decisions and forecasts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from fleettune.releases.guidance import FEATURES
from simulations.results.recorder import write_parquet

_COUNTS = ("devices", "reused", "retuned", "explored", "down_bytes")

DECISIONS: dict[str, Any] = {
    "arm": pl.String,
    "release": pl.Int64,
    "device_class": pl.String,
    **dict.fromkeys(_COUNTS, pl.Int64),
    **dict.fromkeys(("reuse_rate", "retune_rate", "retune_j", "joules_per_retune"), pl.Float64),
    "energy_j": pl.Float64,
    "drift_count": pl.Int64,
    **dict.fromkeys(("drift_q05", "drift_q50", "drift_q95"), pl.Float64),
    "gain_count": pl.Int64,
    **dict.fromkeys(("gain_q05", "gain_q50", "gain_q95"), pl.Float64),
}
"""Columns of ``decisions.parquet``; joules are simulated."""

GUIDANCE: dict[str, Any] = {
    "arm": pl.String,
    "release": pl.Int64,
    "fitted": pl.Boolean,
    "devices": pl.Int64,
    "explored": pl.Int64,
    "effective_devices": pl.Float64,
    **dict.fromkeys(("intercept", *FEATURES), pl.Float64),
    **dict.fromkeys(("threshold", "explore"), pl.Float64),
    "decision": pl.String,
    "decision_reason": pl.String,
    "decision_devices": pl.Int64,
    "mean_gain": pl.Float64,
    "judged_devices": pl.Int64,
    **dict.fromkeys(("judged_effective", "auc", "false_reuse", "false_retune"), pl.Float64),
}
"""Columns of ``guidance.parquet``, which is there where releases came with guidance."""

FORECAST: dict[str, Any] = {
    "arm": pl.String,
    **dict.fromkeys(("release", "round"), pl.Int64),
    **dict.fromkeys(("action", "reasons", "quantity"), pl.String),
    **dict.fromkeys(("devices", "sampled"), pl.Int64),
    **dict.fromkeys(("value", "low", "high", "outcome"), pl.Float64),
    "covered": pl.Boolean,
    "outcome_devices": pl.Int64,
}
"""Columns of ``forecast.parquet``, which is there where releases went out in stages."""

_TABLES = {"decisions": DECISIONS, "guidance": GUIDANCE, "forecast": FORECAST}
_COUNTED = {"decisions": "decided", "rejected": "rejected"}
"""What a round counts by name, and how its columns begin."""


def write_server_tables(folder: Path) -> None:
    """Turns what the server left in a run's folder into Parquet tables, and removes what it left.

    These are ``rounds``, ``releases`` and ``decisions``, and ``guidance`` and ``forecast`` where
    they have rows.
    """
    rounds = _take(folder, "rounds")
    names = {key: sorted({name for entry in rounds for name in entry[key]}) for key in _COUNTED}
    flat = [
        {key: value for key, value in entry.items() if key not in _COUNTED}
        | {
            f"{prefix}_{name}": entry[key].get(name, 0)
            for key, prefix in _COUNTED.items()
            for name in names[key]
        }
        for entry in rounds
    ]
    write_parquet(pl.DataFrame(flat), folder / "rounds.parquet")
    releases = pl.DataFrame(_take(folder, "releases"), infer_schema_length=None)
    write_parquet(releases, folder / "releases.parquet")
    for name, schema in _TABLES.items():
        rows = _take(folder, name)
        if rows or name == "decisions":
            write_parquet(pl.DataFrame(rows, schema=schema), folder / f"{name}.parquet")


def _take(folder: Path, name: str) -> list[dict[str, Any]]:
    left = folder / f"server_{name}.json"
    rows = json.loads(left.read_text())
    left.unlink()
    return rows
