"""Columns made of others: what a study compares and no row holds as it is."""

from __future__ import annotations

import polars as pl

from fleettune.messages.records import STATISTICS_BYTES

TUNING_J = "energy_j_tuning"
"""Simulated joules of probing and tuning, above idle."""
PATCH_BYTES = "patch_bytes"
"""Bytes of the adapter delta that was sent, as priced; 0 where none was."""

STARTED_J = "energy_j_started"
"""Simulated joules of finding a start, probing and tuning, above idle; of runs with a catalogue."""


def with_derived(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns rows with the columns `TUNING_J`, `PATCH_BYTES` and where it can be `STARTED_J`."""
    sent = (pl.col("up_bytes") - STATISTICS_BYTES).clip(lower_bound=0)
    made = rows.with_columns(
        (pl.col("energy_j_tune") + pl.col("energy_j_probe")).alias(TUNING_J),
        pl.when(pl.col("tune_steps") > 0).then(sent).otherwise(0.0).alias(PATCH_BYTES),
    )
    if "start_j" not in made.columns:
        return made
    started = pl.col(TUNING_J) + pl.col("start_j").fill_null(0.0)
    return made.with_columns(started.alias(STARTED_J))
