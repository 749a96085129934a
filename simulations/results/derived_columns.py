"""Adds columns that follow from others, which a study compares and no row holds."""

from __future__ import annotations

import polars as pl

from fleettune.messages.flower_records import STATISTICS_BYTES
from strategies.learning.guidance_rules import Fitted, GuidanceRule

TUNING_J = "energy_j_tuning"
"""Simulated joules of probing and tuning, above idle."""
PATCH_BYTES = "patch_bytes"
"""Bytes of the adapter delta that was sent, as priced; 0 where none was."""

STARTED_J = "energy_j_started"
"""Simulated joules of finding a start, probing and tuning, above idle; of runs with a catalogue."""


def add_derived_columns(rows: pl.DataFrame) -> pl.DataFrame:
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


RETUNING_J = "energy_j_retuning"
"""Simulated joules of deciding and retuning above idle, first patches left out."""


SCORE = "retune_score"
"""What an arm decided by, on one scale for the whole arm."""


_PRIOR = (0.05, 2.0)
"""Drift over strength at one half, and log odds per decade, where no score was fitted."""


_SAME = 1e-9
"""Relative difference below which a score is the ratio of drift and strength itself."""


def add_decision_columns(
    rows: pl.DataFrame, releases: pl.DataFrame, guiding: GuidanceRule
) -> pl.DataFrame:
    """Returns rows with what was decided on every night, as columns.

    ``release_name`` and ``release_kind``; ``decided`` and ``retuned``, 1 where a device with a
    patch reused or retuned, and where it retuned; `RETUNING_J`; `SCORE`: the probability that a
    rule of a fitted score saw, its prior one where nothing was fitted yet, what another rule
    decided by, or drift over strength.

    Args:
        rows: Rows of a run.
        releases: The run's ``releases.parquet``.
        guiding: What the server made of reported decisions.
    """
    named = releases.select(
        pl.col("version").alias("release"),
        pl.col("name").alias("release_name"),
        pl.col("kind").alias("release_kind"),
    )
    choice = pl.col("decision").is_in(["reuse", "retune"]) & (pl.col("reason") != "first_patch")
    spent = [pl.col(f"energy_j_{stage}") for stage in ("check", "probe", "synthesise", "tune")]
    return rows.join(named, on="release", how="left", maintain_order="left").with_columns(
        choice.cast(pl.Int64).alias("decided"),
        (choice & (pl.col("decision") == "retune")).cast(pl.Int64).alias("retuned"),
        pl.when(choice).then(pl.sum_horizontal(spent)).otherwise(0.0).alias(RETUNING_J),
        _score(guiding).alias(SCORE),
    )


def _score(guiding: GuidanceRule) -> pl.Expr:
    kappa, slope = _PRIOR
    if isinstance(guiding, Fitted):
        kappa, slope = guiding.prior_kappa, guiding.prior_slope
    ratio, score = pl.col("drift") / pl.col("strength"), pl.col("score")
    prior = 1 / (1 + (-slope * (ratio.log10() - pl.lit(kappa).log10())).exp())
    plain = score.is_null() | ((score - ratio).abs() <= _SAME * ratio)
    return pl.when(plain).then(prior).otherwise(score)
