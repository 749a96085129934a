"""The fleet patch: the sum of the rounds, in the scale of its receiver."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from clients.tuning.first_patch import warm_start
from fleettune.adapters.factors import Factors
from strategies.aggregation import (
    ExactMean,
)
from strategies.aggregation.fleet_patch import grow_fleet_patch
from tests.strategies.aggregation.deltas import (
    OTHER,
    SITE,
    added,
    effective,
    fleet,
    patch,
    truth,
)


def test_pitfall_1_scales_are_folded_before_and_unfolded_with_the_receivers_own() -> None:
    patches, weights = fleet(1)
    wanted = truth(patches, weights)
    fleet_patch = grow_fleet_patch(None, added(ExactMean(), patches, weights).updates(), 24, 0)
    assert fleet_patch is not None
    rng = np.random.default_rng(2)
    fresh = patch(rng, 24, alpha=7.0, sites=[SITE, OTHER])
    blank = {s: Factors(a=f.a, b=0 * f.b) for s, f in fresh.factors.items()}
    start, sent = warm_start(replace(fresh, factors=blank), fleet_patch)
    assert start.alpha == 7.0
    for site, value in wanted.items():
        # factors in single precision
        np.testing.assert_allclose(effective(start, site), value, atol=1e-4)
        assert sent is not None
        np.testing.assert_allclose(effective(sent, site), value, atol=1e-4)


def test_the_fleet_patch_sums_the_rounds_and_its_first_components_are_its_best() -> None:
    patches, weights = fleet(2)
    aggregate = added(ExactMean(), patches, weights).updates()
    once = grow_fleet_patch(None, aggregate, 24, 0)
    twice = grow_fleet_patch(once, aggregate, 24, 1)
    assert once is not None
    assert twice is not None
    assert (twice.release, twice.scale(SITE)) == (1, 24.0 / twice.ranks[SITE])
    np.testing.assert_allclose(effective(twice, SITE), 2 * effective(once, SITE), atol=1e-4)
    sizes = np.linalg.norm(twice.factors[SITE].a, axis=1)
    assert all(one >= other for one, other in pairwise(sizes))
    assert grow_fleet_patch(None, {}, 4, 0) is None
