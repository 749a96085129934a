"""Plausible rows and a run directory, made from a keyed stream; nothing here is measured."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fleettune.cost.hardware import load_hardware
from fleettune.cost.radio import WIFI
from simulations.experiment.device_fleet import HARDWARE
from simulations.results.device_means import STAGES
from simulations.results.summary import HostInfo, RunInfo, summarise
from simulations.uncertainty.estimate import estimate

ARMS = {  # joules per night on a release night, exact match, decisions drawn from
    "always_retune": (90.0, 0.62, ("retune",)),
    "edgetune_released": (45.0, 0.618, ("reuse", "reuse", "retune", "infeasible")),
    "always_reuse": (12.0, 0.50, ("reuse",)),
    "never_personalise": (5.0, 0.41, ("never",)),
}
INFO = RunInfo(
    seed=7,
    devices=24,
    rounds=12,
    releases=3,
    engine="ray",
    backbone="pocket",
    data="personas",
    quality_metric="exact_match",
    reference="always_retune",
    coefficients={"M": 4, "F": 3, "S": 5, "V": 2, "E": 6},
    priced_as="llama-3.2-1b",
)
HOST = HostInfo(host_seconds=12.5, peak_rss_mb=640.0, seconds_by_phase={"tune": 9.0})
SHARES = np.array([0.05, 0.1, 0.02, 0.03, 0.05, 0.5, 0.15, 0.05, 0.05])  # all stages but idle
PHONE = load_hardware(HARDWARE)["mid_phone"]
IDLE_W = PHONE.p_idle_w.value
ABOVE_W = PHONE.p_storage_w.value - IDLE_W


def one_row(arm: str, device: int, round_: int, rng: np.random.Generator) -> dict[str, object]:
    night_j, match, decisions = ARMS[arm]
    news = round_ % 4 == 0
    energy_j = (night_j if news else 5.0) * (1 + 0.3 * (device % 5)) * rng.uniform(0.9, 1.1)
    quality = match - (0.06 if news else 0.0) + 0.1 * np.sin(device) + rng.normal(0, 0.01)
    row: dict[str, object] = {"arm": arm, "device": device, "round": round_, "profile": PHONE.name}
    row["attendance"] = "present" if rng.random() < 0.9 else "late"
    row |= {"release": round_ // 4, "reason": "", "drift": None, "strength": None}
    row |= {"decision": rng.choice(decisions) if news else "none", "nll": 2.5 - quality}
    row |= {"exact_match": quality, "approval": None, "mae": 1.2 - quality, "rouge1": None}
    row |= {"arrived": 6, "accepted": 5, "asked": 5, "buffer_exchanges": 30}
    row |= {"synthesised": 0, "synthetic_kept": 0, "payload": "full" if news else "none"}
    row["tune_steps"] = 9 if news and row["decision"] == "retune" else 0
    row |= {"time_s": 20 * energy_j, "down_bytes": 4e6 * news, "up_bytes": 2e5 * news}
    row |= {"start_s": 39_600.0 + 60 * device, "night_s": 20 * energy_j}
    idle_j = energy_j * IDLE_W / ABOVE_W
    row |= {"energy_j": energy_j + idle_j, "energy_j_idle": idle_j}
    named = zip(STAGES[1:], SHARES, strict=True)
    return row | {f"energy_j_{stage}": energy_j * share for stage, share in named}


def work_of(rows: pl.DataFrame) -> pl.DataFrame:
    """What the rows were priced from: every stage read from storage."""
    gb_per_j = PHONE.flash_read_gbs.value / ABOVE_W
    marginal = [pl.col(f"energy_j_{stage}").alias(stage) for stage in STAGES[1:]]
    stages = rows.select("arm", "device", "round", *marginal).unpivot(
        index=["arm", "device", "round"], variable_name="stage", value_name="moved_bytes"
    )
    return stages.with_columns(
        pl.lit("read").alias("phase"),
        pl.col("moved_bytes") * gb_per_j * 1e9,
        flop=0.0,
        bursts=0.0,
    )


@pytest.fixture(scope="session")
def rows() -> pl.DataFrame:
    rng = np.random.default_rng(np.random.SeedSequence(1))
    keys = [(arm, device, night) for arm in ARMS for device in range(24) for night in range(12)]
    return pl.DataFrame([one_row(*key, rng) for key in keys])


@pytest.fixture(scope="session")
def make_run(rows: pl.DataFrame) -> Callable[..., Path]:
    """A function that writes a run directory; optionally with other rows or settings."""

    def make(
        path: Path,
        frame: pl.DataFrame = rows,
        config: str = "seed: 7\n",
        metric: str = "",
        seed: int = INFO.seed,
        typed: Sequence[str] = (),
    ) -> Path:
        info = replace(INFO, quality_metric=metric or INFO.quality_metric, seed=seed)
        path.mkdir(parents=True)
        frame.write_parquet(path / "rows.parquet")
        work_of(frame).write_parquet(path / "work.parquet")
        pl.DataFrame({"arm": list(ARMS), "round": 0}).write_parquet(path / "rounds.parquet")
        known = estimate(
            frame, work_of(frame), [PHONE], info.reference, radio=WIFI, seed=info.seed, draws=50
        )
        summary = summarise(frame, info, HOST, known)
        (path / "summary.json").write_text(json.dumps(summary, allow_nan=False))
        (path / "config.yaml").write_text(config)
        (path / "versions.json").write_text(json.dumps({"python": "3.11", "torch": "2"}))
        host = {"host_seconds": 12.5, "peak_rss_mb": 640.0, "seconds_by_phase": {"tune": 9.0}}
        (path / "host.json").write_text(json.dumps(host))
        (path / ".hydra").mkdir()
        (path / ".hydra" / "overrides.yaml").write_text(json.dumps(list(typed)))
        names = ["base", "mild", "severe"]
        releases = {"version": [0, 1, 2], "kind": "finetune", "name": names, "round": [0, 4, 8]}
        releases |= {"tokens": 10**6, "learning_rate": 1e-4, "steps": 50, "size_bytes": 4 * 10**6}
        releases |= {"drift_rms": [0.0, 0.01, 0.09], "loss_before": 3.0, "loss_after": [2.0] * 3}
        pl.DataFrame(releases).write_parquet(path / "releases.parquet")
        return path

    return make


@pytest.fixture
def summary_of() -> Callable[..., dict[str, Any]]:
    """A function that summarises made-up rows, whatever their joules were spent on."""

    def of(frame: pl.DataFrame, info: RunInfo, **options: bool) -> dict[str, Any]:
        known = estimate(
            frame, work_of(frame), [PHONE], info.reference, radio=WIFI, seed=info.seed, draws=50
        )
        return summarise(frame, info, HOST, known, **options)

    return of
