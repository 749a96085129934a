"""Graded styles in order, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from simulations.studies.graded_styles import distances, ordered


def entry(tone: int, place: float, expertise: int = 0) -> dict[str, Any]:
    return {"release": 0, "entry": f"e{expertise}i1t{tone}", "coordinates": [place, 0.0]}


def test_distances_grow_from_the_lowest_level_by_hand() -> None:
    entries = [entry(tone, place, e) for e in (0, 3) for tone, place in enumerate((1.0, 2.0, 4.0))]
    assert distances(entries, "tone").tolist() == [[1.0, 3.0], [1.0, 3.0]]
    assert ordered(entries, "tone") == {"mean": 2.0, "ci95": [2.0, 2.0]}
    # two levels have no order of distances, and a later release is not looked at
    later = {**entries[0], "release": 1, "coordinates": [9.0, 9.0]}
    assert ordered([*entries, later], "expertise")["mean"] is None
    assert ordered([*entries, later], "tone")["mean"] == 2.0


def test_an_unknown_axis_is_told() -> None:
    with pytest.raises(ValueError, match="colour"):
        distances([entry(0, 1.0)], "colour")
