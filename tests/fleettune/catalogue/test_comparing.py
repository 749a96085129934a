"""Comparing: cosines and directions beside words, by hand; noise alike in all directions."""

from __future__ import annotations

import numpy as np
import pytest

from fleettune.catalogue.comparing import (
    cosine_distances,
    unnamed_directions,
    whitening_matrix,
)
from fleettune.catalogue.decomposition import Basis

WORD = Basis(words=("a",), opposites=("b",), vectors=np.array([[1.0, 0.0, 0.0]]))


def test_what_words_leave_is_found_and_orthogonal_to_them() -> None:
    targets = np.array([[1.0, 2.0, 0.0], [3.0, -2.0, 0.0], [-4.0, 0.0, 0.0]])
    found = unnamed_directions(WORD, targets, 5)
    # the words leave (0, 2, 0), (0, -2, 0) and nothing: one direction
    assert np.allclose(np.abs(found), [[0.0, 1.0, 0.0]])
    assert unnamed_directions(WORD, targets[:, :1] * WORD.vectors, 5).shape == (0, 3)


def test_noise_is_alike_in_all_directions_behind_it() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.normal(size=(20, 500, 2)) * [1.0, 5.0] + rng.normal(size=(20, 1, 2))
    by = whitening_matrix(noisy, 1e-6)
    left = (noisy - noisy.mean(axis=1, keepdims=True)) @ by
    assert np.allclose(np.cov(left.reshape(-1, 2).T), np.eye(2), atol=0.02)
    even = whitening_matrix(noisy, 1.0)
    assert np.allclose(even, even[0, 0] * np.eye(2))


def test_no_noise_changes_nothing() -> None:
    assert np.array_equal(whitening_matrix(np.ones((3, 4, 2)), 0.3), np.eye(2))


@pytest.mark.parametrize("shrink", [0.0, 1.1])
def test_a_wrong_share_is_told(shrink: float) -> None:
    with pytest.raises(ValueError, match="shrink"):
        whitening_matrix(np.ones((3, 4, 2)), shrink)


def test_the_cosine_distance_leaves_length_out() -> None:
    entries = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    assert np.allclose(cosine_distances(np.array([0.1, 0.0]), entries), [0.0, 2.0, 1.0, 1.0])
    assert np.allclose(cosine_distances(np.zeros(2), entries), 2.0)


def test_an_entry_is_nearest_to_itself() -> None:
    entries = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    for place, entry in enumerate(entries):
        assert int(np.argmin(cosine_distances(entry, entries))) == place
