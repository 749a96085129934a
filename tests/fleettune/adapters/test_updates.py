"""Updates: shortened without dense matrices, as the dense SVD would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.adapters.updates import (
    Update,
    add_updates,
    factor_dense,
    patch_of,
    total_norm,
    updates_of,
)
from fleettune.shapes import Site


def drawn(seed: int, n_out: int, n_in: int, rank: int) -> Update:
    rng = np.random.default_rng(seed)
    return Update(left=rng.normal(size=(n_out, rank)), right=rng.normal(size=(rank, n_in)))


@settings(derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 999),
    n_out=st.integers(1, 9),
    n_in=st.integers(1, 9),
    stacked_rank=st.integers(1, 12),
    rank=st.integers(1, 9),
)
def test_the_qr_trick_equals_the_dense_truncated_svd(
    seed: int, n_out: int, n_in: int, stacked_rank: int, rank: int
) -> None:
    update = drawn(seed, n_out, n_in, stacked_rank)
    dense = update.dense()
    u, s, vt = np.linalg.svd(dense, full_matrices=False)
    kept = min(rank, len(s))
    best = (u[:, :kept] * s[:kept]) @ vt[:kept]
    short, lost = update.truncate_with_error(rank)
    # double precision; singular values that are nearly equal may mix, which the error then shows
    assert np.linalg.norm(short.dense() - dense) == pytest.approx(
        np.linalg.norm(best - dense), abs=1e-9
    )
    assert lost == pytest.approx(np.linalg.norm(s[kept:]), abs=1e-9)
    assert short.rank <= kept


def test_no_matrix_of_the_full_size_is_formed() -> None:
    # 20,000 x 20,000 doubles would be 3.2 GB
    update = drawn(0, 20_000, 20_000, 6)
    short = update.truncate(3)
    assert short.rank == 3
    assert update.norm() > short.norm() > 0


def test_both_factors_carry_the_root_of_the_singular_values_in_descending_order() -> None:
    short = drawn(1, 8, 6, 5).truncate()
    left = np.linalg.norm(short.left, axis=0)
    assert left == pytest.approx(np.linalg.norm(short.right, axis=1))
    assert (np.diff(left) <= 0).all()


def test_sums_norms_and_patches_agree_with_dense_matrices() -> None:
    one, two = drawn(2, 5, 7, 2), drawn(3, 5, 7, 3)
    both = add_updates([one, two.times(-2)])
    assert both.dense() == pytest.approx(one.dense() - 2 * two.dense())
    assert both.norm() == pytest.approx(np.linalg.norm(both.dense()))
    assert total_norm([one, two]) == pytest.approx(np.hypot(one.norm(), two.norm()))
    assert factor_dense(one.dense()).dense() == pytest.approx(one.dense())
    site = Site(0, "q")
    back = updates_of(patch_of({site: one}, 4, 12.0))[site]
    # single precision
    assert np.allclose(back.dense(), one.dense(), rtol=1e-5, atol=1e-5)


def test_an_update_of_zeros_has_a_shortened_form() -> None:
    zero = drawn(0, 4, 4, 2).times(0)
    assert zero.truncate().dense() == pytest.approx(np.zeros((4, 4)))


def test_a_patch_needs_an_alpha() -> None:
    with pytest.raises(ValueError, match="alpha must be > 0, got 0"):
        patch_of({Site(0, "q"): drawn(0, 2, 2, 1)}, 0, 0.0)
