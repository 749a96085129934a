"""Strongest words judged and the map of a catalogue, by hand."""

from __future__ import annotations

from typing import Any

from simulations.studies.catalogue_map import draw_catalogue_map
from simulations.studies.explained_words import strongest_right


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
    *words, points = draw_catalogue_map(ENTRIES)["data"]
    assert len(points["x"]) == 4
    assert {trace["text"][1] for trace in words} == {"lengthy", "learned"}
    # what differs most is the length of answers
    assert points["x"][0] * points["x"][1] < 0
    assert points["hovertext"][1] == "e3i3t0: lengthy"
