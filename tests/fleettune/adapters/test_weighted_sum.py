"""Merging: against the dense sum and its SVD, and non-negative least squares against a grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.adapters.patch import Factors, Patch
from fleettune.adapters.updates import merge_patches, nonnegative_pair
from fleettune.shapes import Site

SITES = (Site(0, "q"), Site(1, "up"))


def drawn(seed: int, rank: int, alpha: float, sites: tuple[Site, ...] = SITES) -> Patch:
    rng = np.random.default_rng(seed)
    factors = {
        site: Factors(
            a=rng.normal(size=(rank, 7)).astype(np.float32),
            b=rng.normal(size=(9, rank)).astype(np.float32),
        )
        for site in sites
    }
    return Patch(release=1, alpha=alpha, factors=factors)


def test_a_merge_of_enough_rank_is_the_weighted_sum_of_updates() -> None:
    one, other = drawn(0, 2, 16.0), drawn(1, 3, 4.0)
    found = merge_patches([one, other], [0.25, 2.0], rank=5, alpha=8.0)
    for site in SITES:
        wanted = 0.25 * one.dense(site) + 2.0 * other.dense(site)
        # single precision of factors
        assert np.allclose(found.dense(site), wanted, atol=1e-4)


def test_a_merge_of_less_rank_is_the_nearest_of_that_rank() -> None:
    one, other = drawn(0, 2, 16.0), drawn(1, 3, 4.0)
    found = merge_patches([one, other], [1.0, 1.0], rank=2, alpha=8.0)
    for site in SITES:
        dense = (one.dense(site) + other.dense(site)).astype(float)
        u, values, v = np.linalg.svd(dense)
        best = (u[:, :2] * values[:2]) @ v[:2]
        assert np.allclose(found.dense(site), best, atol=1e-4)
        assert found.ranks[site] == 2


def test_a_site_that_one_patch_lacks_keeps_the_others_update() -> None:
    one, other = drawn(0, 2, 16.0), drawn(1, 2, 16.0, SITES[:1])
    found = merge_patches([one, other], [0.5, 0.5], rank=4, alpha=16.0)
    assert np.allclose(found.dense(SITES[1]), 0.5 * one.dense(SITES[1]), atol=1e-5)


def test_patches_of_other_releases_are_not_added() -> None:
    later = Patch(release=2, alpha=1.0, factors=drawn(0, 2, 1.0).factors)
    with pytest.raises(ValueError, match="one release"):
        merge_patches([drawn(0, 2, 1.0), later], [1, 1], rank=2, alpha=1.0)
    with pytest.raises(ValueError, match="weight per patch"):
        merge_patches([later], [], rank=2, alpha=1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_no_pair_of_weights_on_a_grid_is_nearer(seed: int, size: int) -> None:
    one, other, target = np.random.default_rng(seed).normal(size=(3, size))
    a, b, left = nonnegative_pair(one, other, target)
    assert a >= 0
    assert b >= 0
    assert left == pytest.approx(float(np.linalg.norm(a * one + b * other - target)))
    for x in np.linspace(0, 3, 13):
        for y in np.linspace(0, 3, 13):
            assert left <= np.linalg.norm(x * one + y * other - target) + 1e-9


def test_weights_by_hand() -> None:
    one, other = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    assert nonnegative_pair(one, other, np.array([3.0, 1.0])) == (3.0, 0.5, 0.0)
    assert nonnegative_pair(one, other, np.array([3.0, -1.0])) == (3.0, 0.0, 1.0)
    assert nonnegative_pair(one, other, np.array([-3.0, -4.0])) == (0.0, 0.0, 5.0)
