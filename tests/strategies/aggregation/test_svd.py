"""SVD: the best approximation of the dense mean, without the dense matrix."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.adapters.patch import Patch
from strategies.aggregation import (
    Svd,
)
from tests.strategies.aggregation.deltas import (
    SITE,
    drawn,
    fleet,
    truth,
)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), rank=st.integers(1, 8), devices=st.integers(1, 40))
def test_svd_is_the_truncated_svd_of_the_dense_mean(seed: int, rank: int, devices: int) -> None:
    # up to 40 devices of rank 2 to 6: the stack is shortened on the way, and loses nothing
    patches, weights = fleet(seed, [2 + place % 5 for place in range(devices)])
    aggregate = Svd(rank=rank).open()
    for one, weight in zip(patches, weights, strict=True):
        aggregate.add(one, weight)
    found = aggregate.updates()
    assert max(one.held.left_out for one in aggregate.sites.values()) <= 1e-9 * sum(weights)
    for site, dense in truth(patches, weights).items():
        u, s, vt = np.linalg.svd(dense, full_matrices=False)
        best = (u[:, :rank] * s[:rank]) @ vt[:rank]
        # components whose singular values are equal to a share of 1e-4 may be swapped
        if rank < len(s) and s[rank - 1] - s[rank] > 1e-4 * s[0]:
            assert np.linalg.norm(found[site].dense() - best) <= 1e-5 * np.linalg.norm(dense)
        apart = np.linalg.norm(found[site].dense() - dense)
        assert apart == pytest.approx(np.linalg.norm(best - dense), abs=1e-5 * s[0])


def test_a_working_rank_below_the_matrix_says_what_it_may_have_lost() -> None:
    patches, weights = fleet(3, [4] * 12)
    aggregate = Svd(rank=4, working_rank=8).open()
    for one, weight in zip(patches, weights, strict=True):
        aggregate.add(one, weight)
    dense = truth(patches, weights)[SITE]
    s = np.linalg.svd(dense, compute_uv=False)
    apart = np.linalg.norm(aggregate.updates()[SITE].dense() - dense)
    left_out = aggregate.sites[SITE].held.left_out / aggregate.sites[SITE].weight
    assert left_out > 0
    assert apart <= np.linalg.norm(s[4:]) + 2 * left_out


def test_svd_never_forms_a_dense_matrix() -> None:
    rng = np.random.default_rng(0)
    large = {SITE: drawn(rng, 4, (4000, 4000))}
    aggregate = Svd(rank=4, working_rank=16).open()
    tracemalloc.start()
    for _ in range(20):
        aggregate.add(Patch(release=0, alpha=8.0, factors=large), 1.0)
    assert aggregate.updates()[SITE].rank == 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 4,000 x 4,000 doubles are 128 MB; sixty columns of 4,000 and their decomposition are less
    assert peak < 32e6
