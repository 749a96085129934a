"""Strongest words judged, the map of a catalogue, sweeps and the table of starts, by hand."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from simulations.catalogue_map import map_figure, map_section
from simulations.sweeps import Sweep, sweep_figure
from simulations.wording import strongest_right


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


def rows(arm: str, **columns: list[Any]) -> pl.DataFrame:
    count = len(next(iter(columns.values())))
    return pl.DataFrame({"arm": [arm] * count, "device": list(range(count)), **columns})


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
