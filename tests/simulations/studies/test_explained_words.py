"""Strongest words judged, the map of a catalogue, sweeps and the table of starts, by hand."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from simulations.experiment.study_settings import Sweep
from simulations.report.start_tables import start_cells
from simulations.studies.catalogue_map import map_figure, map_section
from simulations.studies.explained_words import strongest_right
from simulations.studies.sweeps import sweep_figure


def entry(name: str, word: str, *places: float) -> dict[str, Any]:
    about = {"release": 0, "entry": name, "origin": "corpus", "strongest": word, "reads": word}
    return {**about, "words": ["lengthy", "learned"], "coordinates": list(places)}


ENTRIES = [
    entry("e0i0t0", "terse", -1.0, 0.0),
    entry("e3i3t0", "lengthy", 1.0, 0.5),
    entry("e0i3t0", "learned", 0.9, -0.5),
    entry("e0i0t1", "direct", -0.9, 0.0),
]


def test_a_word_is_right_on_the_entrys_side_of_its_axis() -> None:
    # learned is about expertise, of which e0 has none; direct is about no axis
    assert strongest_right(ENTRIES)["mean"] == 0.5
    assert strongest_right([entry("plays", "lengthy", 1.0)])["mean"] is None


def test_a_map_holds_every_entry_and_the_words() -> None:
    *words, points = map_figure(ENTRIES)["data"]
    assert len(points["x"]) == 4
    assert {trace["text"][1] for trace in words} == {"lengthy", "learned"}
    # what differs most is the length of answers
    assert points["x"][0] * points["x"][1] < 0
    assert "e3i3t0" in map_section(ENTRIES)
    assert map_section([]) == ""


NUMBERS = ("energy_j", "time_s", "down_bytes", "up_bytes", "exact_match", "approval", "mae")
STAGES = ("idle", "download", "select", "synthesise", "check", "probe", "tune", "serve", "upload")


def rows(arm: str, **columns: list[Any]) -> pl.DataFrame:
    made = pl.DataFrame(columns).with_row_index("device").with_columns(pl.lit(arm).alias("arm"))
    zero = [*NUMBERS, "rouge1", "energy_j_wasted", *(f"energy_j_{stage}" for stage in STAGES)]
    words = [pl.lit("x").alias(name) for name in ("profile", "attendance", "decision")]
    filled = [pl.lit(0.0).alias(name) for name in zero if name not in columns]
    return made.with_columns(*words, *filled, pl.lit(3).cast(pl.Int64).alias("round"))


def test_what_a_catalogue_saved_is_a_row_per_arm_and_for_those_who_joined() -> None:
    tuned = {"tune_steps": [4, 4], "energy_j_tune": [8.0, 8.0], "nll": [1.0, 1.0]}
    warm = {**tuned, "energy_j_tune": [2.0, 2.0], "nll": [0.5, 0.5]}
    found = {
        name: rows(name, **of, start_entries=[n, n], start_nll=[2.0, 2.0], start_j=[j, j])
        for name, of, n, j in (("scratch", tuned, 0, 0.0), ("warm", warm, 1, 1.0))
    }
    # both tuned in round 3; device 1 alone was there in the first round
    early = rows("warm", **{k: v[:1] for k, v in warm.items()}).with_columns(
        pl.lit(0).cast(pl.Int64).alias("round"), pl.lit(1).cast(pl.UInt32).alias("device")
    )
    found["warm"] = pl.concat([early, found["warm"]], how="diagonal")
    columns, cells = start_cells(found, "scratch")
    told = [dict(zip(columns, line, strict=True)) for line in cells]
    assert [(row["arm"], row["devices"], row["first tunes"]) for row in told[:2]] == [
        ("scratch", "all", "2"),
        ("scratch", "joined", "2"),
    ]
    all_warm, joined = (row for row in told if row["arm"] == "warm")
    assert (all_warm["first tunes"], joined["first tunes"]) == ("2", "1")
    # 8 joules of the reference's tune less 2 of this one's and 1 of finding it
    assert all_warm["joules saved per device [95 %]"].startswith("5")
    assert all_warm["nats against the reference [95 %]"].startswith("-0.500")


def test_a_sweep_draws_means_and_what_quality_takes() -> None:
    def world(better: float) -> pl.DataFrame:
        made = [("scratch_1", 1, 2.0), ("scratch", 8, 1.0), ("warm", 8, 1.0 - better)]
        parts = [rows(a, tune_steps=[s, s], nll=[n, n]) for a, s, n in made]
        return pl.concat([*parts, rows("warm_1", tune_steps=[1, 1], nll=[1.5, 1.5])])

    families = {"scratch": ("scratch_1", "scratch"), "warm": ("warm_1", "warm")}
    sweep = Sweep(title="t", x="x", column="tune_steps", arms=("warm", "scratch"), points={"a": 1})
    drawn = sweep_figure(sweep, {"a": world(0.5)}, families, ("nll", -1.0))["data"]
    assert [trace["y"] for trace in drawn] == [[8.0], [8.0]]
    reach = Sweep(
        title="t", x="x", column="tune_steps", arms=("warm", "scratch"), points={"a": 1}, reach=True
    )
    drawn = sweep_figure(reach, {"a": world(0.5)}, families, ("nll", -1.0))["data"]
    # half way from 1.5 nats at step 1 to 0.5 at step 8
    assert [trace["y"] for trace in drawn] == [[pytest.approx(4.5)], [8.0]]
