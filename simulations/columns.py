"""Columns made of others: what a study compares and no row holds as it is."""

from __future__ import annotations

import polars as pl

from fleettune.wire import STATISTICS_BYTES

TUNING_J = "energy_j_tuning"
"""Simulated joules of probing and tuning, above idle."""
PATCH_BYTES = "patch_bytes"
"""Bytes of the adapter delta that was sent, as priced; 0 where none was."""


def with_derived(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns rows with the columns `TUNING_J` and `PATCH_BYTES`."""
    sent = (pl.col("up_bytes") - STATISTICS_BYTES).clip(lower_bound=0)
    return rows.with_columns(
        (pl.col("energy_j_tune") + pl.col("energy_j_probe")).alias(TUNING_J),
        pl.when(pl.col("tune_steps") > 0).then(sent).otherwise(0.0).alias(PATCH_BYTES),
    )
