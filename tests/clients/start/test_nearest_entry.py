"""The nearest entry, the nearest sum of two or scratch, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clients.start.nearest_entry import NearestEntry, choose_start
from clients.start.placing import (
    Start,
)
from tests.clients.start.offered import manifest


def test_the_nearest_entry_is_taken_where_it_is_near_enough() -> None:
    found = choose_start(np.array([2.0, 0.1]), manifest(), NearestEntry())
    assert (found.entries, found.weights, found.wanted) == ((0,), (1.0,), ("digest0",))


def test_two_entries_are_added_where_neither_is_near() -> None:
    found = choose_start(np.array([2.0, 2.0]), manifest(), NearestEntry(single_within=0.2))
    assert found.entries == (0, 2)
    assert found.weights == pytest.approx((0.5, 0.5))
    assert found.wanted == ("digest0", "digest2")
    assert found.distance == pytest.approx(0)


def test_scratch_is_what_is_left() -> None:
    how = NearestEntry(single_within=0.0, merged_within=0.0)
    above = np.array([[4.0, 0.0, 0.0], [-4.0, 0.0, 0.0]])
    found = choose_start(np.array([3.0, 0.0, 4.0]), manifest(above), how)
    assert found == Start(distance=found.distance)
    # three along the entry's word and four along one that no entry has: a cosine of 3 / 5
    assert found.distance == pytest.approx(0.4)


def test_what_a_device_asks_for_does_not_tell_where_its_user_stands() -> None:
    """Two users at different places who choose alike send alike: digests, nothing else."""
    near, nearer = np.array([2.0, 0.3]), np.array([3.0, -0.2])
    starts = [choose_start(point, manifest(), NearestEntry()) for point in (near, nearer)]
    assert starts[0].wanted == starts[1].wanted == ("digest0",)
    assert all(isinstance(one, str) for one in starts[0].wanted)
    listed = {entry.digest for entry in manifest().entries}
    assert set(starts[0].wanted) <= listed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"single_within": -1.0}, r"start\.single_within must be >= 0"),
        ({"merged_within": -1.0}, r"start\.merged_within must be >= 0"),
        ({"exchanges": 0}, r"start\.exchanges must be >= 1"),
        ({"new_tokens": 0}, r"start\.new_tokens must be >= 1"),
        ({"answers": "any"}, r"start\.answers must be one of \('own', 'like'\), got 'any'"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NearestEntry(**change)  # pyright: ignore[reportArgumentType] - wrong on purpose
