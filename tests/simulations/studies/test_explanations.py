"""Explanations of generated styles judged, and the map of a catalogue, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from simulations.studies.explanations import distances, level_growth, strongest_right


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


def level(tone: int, place: float, expertise: int = 0) -> dict[str, Any]:
    return {"release": 0, "entry": f"e{expertise}i1t{tone}", "coordinates": [place, 0.0]}


def test_distances_grow_from_the_lowest_level_by_hand() -> None:
    entries = [level(tone, place, e) for e in (0, 3) for tone, place in enumerate((1.0, 2.0, 4.0))]
    assert distances(entries, "tone").tolist() == [[1.0, 3.0], [1.0, 3.0]]
    assert level_growth(entries, "tone") == {"mean": 2.0, "ci95": [2.0, 2.0]}
    # two levels have no order of distances, and a later release is not looked at
    later = {**entries[0], "release": 1, "coordinates": [9.0, 9.0]}
    assert level_growth([*entries, later], "expertise")["mean"] is None
    assert level_growth([*entries, later], "tone")["mean"] == 2.0


def test_an_unknown_axis_is_told() -> None:
    with pytest.raises(ValueError, match="colour"):
        distances([level(0, 1.0)], "colour")
