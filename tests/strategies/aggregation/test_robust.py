"""Trimmed means and medians: of coordinates, and hard to move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from strategies.aggregation import (
    Aggregation,
    ExactMean,
    MedianOfMeans,
    TrimmedMean,
)
from tests.strategies.aggregation.deltas import (
    SITE,
    added,
    effective,
    fleet,
    patch,
)


def test_pitfall_8_sketches_have_one_length_whatever_the_ranks() -> None:
    patches, _ = fleet(8, (1, 4, 7))
    aggregate = MedianOfMeans(groups=9, columns=10).open()
    for one in patches:
        aggregate.add(one)
    assert {kept.shape for kept in aggregate.sites[SITE].held.kept} == {(24, 10)}


def test_trimmed_means_and_medians_are_those_of_the_coordinates_of_a_rotation() -> None:
    patches = [replace(one, alpha=4.0) for one in fleet(4, [4] * 7)[0]]
    trimmed = added(TrimmedMean(trim=2, columns=24), patches, [1.0] * 7)
    basis = trimmed.sites[SITE].held.basis
    assert np.allclose(basis.T @ basis, np.eye(24))
    seen = np.sort([effective(one, SITE) @ basis for one in patches], axis=0)
    wanted = seen[2:5].mean(axis=0) @ basis.T
    np.testing.assert_allclose(trimmed.updates()[SITE].dense(), wanted, atol=1e-5)
    median = added(MedianOfMeans(groups=7, columns=24), patches, [1.0] * 7).updates()[SITE]
    np.testing.assert_allclose(median.dense(), seen[3] @ basis.T, atol=1e-5)
    dealt = added(MedianOfMeans(groups=3, columns=24), patches, [1.0] * 7).updates()[SITE]
    sketches = [effective(one, SITE) @ basis for one in patches]
    means = [np.mean(sketches[place::3], axis=0) for place in range(3)]
    np.testing.assert_allclose(dealt.dense(), np.median(means, axis=0) @ basis.T, atol=1e-5)


@pytest.mark.parametrize(
    "rule", [TrimmedMean(trim=2, columns=24), MedianOfMeans(groups=9, columns=24)]
)
def test_two_wrong_devices_of_nine_cannot_move_a_robust_rule_far(rule: Aggregation) -> None:
    rng = np.random.default_rng(0)
    honest = [patch(rng, 4, 4.0, [SITE]) for _ in range(9)]
    for size in (1e3, 1e9):
        wrong = [replace(one, alpha=4.0 * size) for one in honest[:2]] + honest[2:]
        moved, plain = (added(rule, some, [1.0] * 9).updates()[SITE] for some in (wrong, honest))
        mean = added(ExactMean(), wrong, [1.0] * 9).updates()[SITE]
        spread = max(float(np.linalg.norm(effective(one, SITE))) for one in honest)
        assert np.linalg.norm(moved.dense() - plain.dense()) < spread < mean.norm() / 100


def test_too_few_devices_for_a_trimmed_mean_are_no_aggregate() -> None:
    patches, weights = fleet(0, (2, 2, 2, 2))
    aggregate = added(TrimmedMean(trim=1, columns=24), patches, weights)
    # four adapted SITE, two OTHER, of which both would be left out
    assert aggregate.counts == {SITE: 4}
    assert aggregate.updates().keys() == aggregate.mean().keys() == {SITE}
