"""Thresholds from finished runs: what devices reported becomes a score, and a score guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fleettune.releases.guidance import FEATURES, features_of
from simulations.assets.fixed_guidance import DEFAULT, fit_score, overrides_of, read_rows
from simulations.report.run_page import tabulate_learned
from simulations.results.recorder import SCHEMA
from strategies.learning.arm_learning import ArmLearning, guidance_of, guidance_rows, guide_release
from strategies.learning.guidance_rules import Fixed


def night(device: int, worse: float, gain: float | None, drift: float = 0.1) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SCHEMA, 0)
    row |= {"arm": "ours", "device": device, "release": 1, "profile": "phone", "payload": "full"}
    row |= {"attendance": "present", "decision": "reuse" if gain is None else "retune"}
    row |= {"reason": "test", "drift": drift, "strength": 1.0, "canary_worse": worse}
    row |= {"explored": int(gain is not None), "propensity": 0.5}
    known = {"canary_before": 1.0, "canary_after": 1.0 - (gain or 0.0), "retune_gain": None}
    return row | known


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA)


def test_a_score_follows_canaries_that_tell_and_ignores_what_the_observer_saw() -> None:
    told = frame([night(i, 0.01 * (i % 10), 0.2 if i % 10 > 4 else 0.0) for i in range(40)])
    found = fit_score(told, DEFAULT)
    assert (found.fitted, found.devices, found.explored) == (True, 40, 40)
    weights = dict(found.rule.weights)
    assert weights["canary"] > 10
    seen = told.with_columns(retune_gain=pl.lit(9.9))
    assert fit_score(seen, DEFAULT) == found
    words = dict(word.split("=") for word in overrides_of(found))
    assert words["guidance"] == "fixed"
    assert {f"guidance.{name}" for name in FEATURES} <= set(words)


def test_reuses_have_no_gain_and_too_few_explored_retunes_fit_nothing() -> None:
    few = frame([night(i, 0.1, 0.2 if i < 4 else None) for i in range(20)])
    found = fit_score(few, DEFAULT)
    assert (found.fitted, found.devices, found.rule) == (False, 4, DEFAULT.calibration().prior)


def test_a_fixed_score_comes_with_every_release_but_the_first_and_learns_nothing() -> None:
    rule = Fixed(
        intercept=-1.0,
        log_drift=2.0,
        canary=3.0,
        canary_level=0.5,
        canary_missing=4.0,
        threshold=0.6,
    )
    learning = guide_release(ArmLearning(), rule, 1)
    assert guidance_of(learning, rule, 0) is None
    told = guidance_of(learning, rule, 1)
    assert told == rule.guidance()
    # ten times the strength is one decade, and half a nat counts 3 * 0.5
    assert told is not None
    assert told.logit(features_of(10.0, 1.0, 0.5, 2.0)) == pytest.approx(3.5)
    assert guidance_of(guide_release(learning, rule, 5), rule, 5) == told
    assert learning == ArmLearning()
    assert guidance_rows(learning, rule) == []
    with pytest.raises(ValueError, match=r"threshold must be > 0 and < 1, got 1\.0"):
        Fixed(
            intercept=0.0,
            log_drift=0.0,
            canary=0.0,
            canary_level=0.0,
            canary_missing=0.0,
            threshold=1.0,
        )


def test_only_finished_runs_with_the_arm_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks summary\.json"):
        read_rows([tmp_path], "ours")
    (tmp_path / "summary.json").write_text("{}")
    frame([night(0, 0.1, None)]).write_parquet(tmp_path / "rows.parquet")
    assert read_rows([tmp_path, tmp_path], "ours").height == 2
    with pytest.raises(ValueError, match="one of ours, got 'theirs'"):
        read_rows([tmp_path], "theirs")


def test_a_report_shows_what_the_server_learnt_and_nothing_where_it_did_not(
    tmp_path: Path,
) -> None:
    assert not any(tabulate_learned(tmp_path).values())
    counted = {"arm": ["ours"] * 2, "release": [1, 1], "device_class": ["all", "phone"]}
    counted |= {name: [4, 4] for name in ("devices", "reused", "retuned", "explored")}
    counted |= {"retune_rate": [0.5, 0.5], "joules_per_retune": [300.0, 300.0]}
    counted |= {f"gain_q{share}": [0.1, 0.1] for share in ("05", "50", "95")}
    pl.DataFrame(counted).write_parquet(tmp_path / "decisions.parquet")
    (shown,) = tabulate_learned(tmp_path)["decisions"]  # classes are summed in the row shown
    assert shown["arm"] == "ours"
    assert shown["retune rate"] == "50.0 %"
    assert shown["joules per retune"] == "300 J"
    assert shown["median gain (5 % to 95 %)"] == "0.100 (0.100 to 0.100)"
