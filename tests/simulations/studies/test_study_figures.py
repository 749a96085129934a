"""Curves over worlds, by hand."""

from __future__ import annotations

import polars as pl
import pytest

from simulations.experiment.study_settings import Sweep
from simulations.studies.study_figures import draw_sweep
from tests.simulations.started_rows import rows


def test_a_sweep_draws_means_and_what_quality_takes() -> None:
    def world(better: float) -> pl.DataFrame:
        made = [("scratch_1", 1, 2.0), ("scratch", 8, 1.0), ("warm", 8, 1.0 - better)]
        parts = [rows(a, tune_steps=[s, s], nll=[n, n]) for a, s, n in made]
        return pl.concat([*parts, rows("warm_1", tune_steps=[1, 1], nll=[1.5, 1.5])])

    families = {"scratch": ("scratch_1", "scratch"), "warm": ("warm_1", "warm")}
    sweep = Sweep(title="t", x="x", column="tune_steps", arms=("warm", "scratch"), points={"a": 1})
    drawn = draw_sweep(sweep, {"a": world(0.5)}, families, "neg_nll")["data"]
    assert [trace["y"] for trace in drawn] == [[8.0], [8.0]]
    equal = Sweep(
        title="t",
        x="x",
        column="tune_steps",
        arms=("warm", "scratch"),
        points={"a": 1},
        equal_quality=True,
    )
    drawn = draw_sweep(equal, {"a": world(0.5)}, families, "neg_nll")["data"]
    # half way from 1.5 nats at step 1 to 0.5 at step 8
    assert [trace["y"] for trace in drawn] == [[pytest.approx(4.5)], [8.0]]
