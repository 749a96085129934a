"""Patches on a device: versions, swaps, evictions, and to which release one may be applied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.state.shelf import EMPTY, Shelf, Shelved, applicable, read_shelf, write_shelf
from clients.state.state import DeviceState, read_state, write_state
from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.shapes import Site


def made(release: int, rank: int = 1, used: int = 0) -> Shelved:
    rng = np.random.default_rng(release)
    item = Factors(
        a=rng.normal(size=(rank, 4)).astype(np.float32),
        b=rng.normal(size=(4, rank)).astype(np.float32),
    )
    patch = Patch(release=release, alpha=2.0, factors={Site(0, "q"): item})
    return Shelved(patch=patch, used=used)


def keys(shelf: Shelf) -> list[int]:
    return [item.key for item in shelf.patches]


def test_a_shelf_holds_one_patch_per_release_with_its_version() -> None:
    shelf = EMPTY
    for item in (made(2), made(0), made(1), made(0)):
        shelf = shelf.load(item)
    assert keys(shelf) == [0, 1, 2]
    assert [item.version for item in shelf.patches] == [1, 0, 0]
    assert shelf.find(0) is not None
    assert shelf.find(3) is None
    assert shelf.without(0).find(0) is None
    # a rank-1 patch of a 4 x 4 matrix: eight numbers
    assert shelf.size_bytes == 3 * 8 * 4


def test_what_was_used_least_recently_is_evicted_first_by_hand() -> None:
    shelf = EMPTY
    for item in (made(0, used=5), made(1, used=2), made(2, used=7, rank=2)):
        shelf = shelf.load(item)
    # 32, 32 and 64 bytes
    assert shelf.size_bytes == 128
    assert keys(shelf.within(128)) == [0, 1, 2]
    assert keys(shelf.within(127)) == [0, 2]
    assert keys(shelf.within(95)) == [2]
    assert keys(shelf.within(0)) == []


@settings(derandomize=True, deadline=None)
@given(
    held=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(0, 9)), max_size=8),
    room=st.integers(0, 400),
)
def test_an_eviction_always_fits_and_keeps_no_older_patch_than_it_drops(
    held: list[tuple[int, int, int]], room: int
) -> None:
    shelf = EMPTY
    for release, rank, used in held:
        shelf = shelf.load(made(release, rank, used=used))
    kept = shelf.within(room)
    assert kept.size_bytes <= room
    gone = [item for item in shelf.patches if item.key not in keys(kept)]
    assert all(one.used <= other.used for one in gone for other in kept.patches)


def test_a_shelf_counts_against_the_quota_and_survives_its_records() -> None:
    shelf = EMPTY.load(made(0, used=4)).load(made(1))
    state = DeviceState(patch=made(2).patch, residual=made(2, rank=2).patch, shelf=shelf)
    assert state.stored_bytes == (1 + 2 + 1 + 1) * 8 * 4
    records = RecordDict()
    write_state(records, state, "arm")
    found = read_state(records, "arm")
    assert keys(found.shelf) == keys(shelf)
    for one, other in zip(found.shelf.patches, shelf.patches, strict=True):
        assert (one.version, one.used) == (other.version, other.used)
        assert one.patch.digest() == other.patch.digest()
    assert found.residual is not None
    write_state(records, replace(state, shelf=EMPTY, residual=None), "arm")
    assert len(records.array_records) == 1
    assert read_state(records, "arm").shelf == EMPTY


def test_a_shelf_that_shrinks_leaves_nothing_behind() -> None:
    records = RecordDict()
    write_shelf(records, "shelf", EMPTY.load(made(0)).load(made(1)))
    write_shelf(records, "shelf", EMPTY.load(made(1)))
    assert sorted(records) == ["shelf", "shelf/0"]
    assert keys(read_shelf(records, "shelf")) == [1]


@pytest.mark.parametrize("release", [0, 1, 2])
@pytest.mark.parametrize("reused", [True, False])
def test_a_patch_is_applied_to_its_own_release_or_where_reuse_was_decided(
    release: int, *, reused: bool
) -> None:
    patch = made(1).patch
    found = applicable(patch, release, reused=reused)
    assert (found is patch) == (release == 1 or reused)
    assert applicable(None, release, reused=reused) is None
