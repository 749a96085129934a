"""Aggregation: the mean of effective updates of unlike patches, never a mean of factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fleettune.adapters.patch import Factors, Patch
from fleettune.shapes import Site
from strategies.aggregation import Aggregate, ExactMean
from strategies.aggregation.aggregate import mean_norm
from tests.strategies.aggregation.deltas import (
    OTHER,
    SITE,
    added,
    error,
    fleet,
    truth,
)

SHAPES: Mapping[Site, tuple[int, int]] = {
    Site(0, "q"): (6, 6),
    Site(0, "k"): (4, 6),
    Site(1, "down"): (6, 9),
}


def random_patch(rng: np.random.Generator, ranks: Mapping[Site, int], alpha: float) -> Patch:
    factors: dict[Site, Factors] = {}
    for site, rank in ranks.items():
        n_out, n_in = SHAPES[site]
        a, b = rng.normal(size=(rank, n_in)), rng.normal(size=(n_out, rank))
        factors[site] = Factors(a=a.astype(np.float32), b=b.astype(np.float32))
    return Patch(release=0, alpha=alpha, factors=factors)


def updated(patches: Sequence[Patch]) -> Aggregate[Any]:
    update = ExactMean().open()
    for patch in patches:
        update.add(patch)
    return update


def brute_force(patches: Sequence[Patch]) -> dict[Site, NDArray[np.float64]]:
    """Mean over the patches that adapt a site of alpha / rank * B A, in double precision."""
    found: dict[Site, NDArray[np.float64]] = {}
    for site in SHAPES:
        dense = [
            patch.alpha
            / patch.factors[site].a.shape[0]
            * (patch.factors[site].b.astype(np.float64) @ patch.factors[site].a)
            for patch in patches
            if site in patch.factors
        ]
        if dense:
            found[site] = np.mean(dense, axis=0)
    return found


fleets = st.lists(
    st.dictionaries(st.sampled_from(list(SHAPES)), st.integers(1, 4), min_size=1),
    min_size=1,
    max_size=6,
)


def fleet_of(ranks: Sequence[Mapping[Site, int]], seed: int) -> list[Patch]:
    rng = np.random.default_rng(seed)
    return [random_patch(rng, chosen, alpha=float(rng.integers(1, 9))) for chosen in ranks]


@settings(derandomize=True)
@given(ranks=fleets, seed=st.integers(0, 10**6))
def test_mixed_ranks_scales_and_supports_equal_brute_force(
    ranks: list[dict[Site, int]], seed: int
) -> None:
    patches = fleet_of(ranks, seed)
    mean, expected = updated(patches).mean(), brute_force(patches)
    assert mean.keys() == expected.keys()
    for site, value in mean.items():
        # Each dense update is a product in single precision of at most 4 terms of size about 8.
        np.testing.assert_allclose(value, expected[site], rtol=1e-5, atol=1e-4)
    norm = math.sqrt(sum(float((value**2).sum()) for value in expected.values()))
    assert mean_norm(updated(patches)) == pytest.approx(norm, rel=1e-4)


@settings(derandomize=True)
@given(ranks=fleets, seed=st.integers(0, 10**6), data=st.data())
def test_the_order_of_patches_changes_rounding_at_most(
    ranks: list[dict[Site, int]], seed: int, data: st.DataObject
) -> None:
    patches = fleet_of(ranks, seed)
    turned = data.draw(st.permutations(patches))
    one, other = updated(patches), updated(turned)
    assert one.counts == other.counts
    for site, value in one.mean().items():
        # Sums are kept in double precision and rounded once to single: at most one last place
        # of a mean that may nearly cancel.
        np.testing.assert_allclose(value, other.mean()[site], rtol=2e-7, atol=1e-12)


def test_patches_in_the_order_of_their_devices_give_equal_bytes() -> None:
    patches = dict(enumerate(fleet_of([{Site(0, "q"): 2}] * 7, seed=1)))
    arrived = [3, 0, 6, 2, 5, 1, 4]
    once = updated([patches[device] for device in sorted(arrived)]).mean()
    again = updated([patches[device] for device in sorted(patches)]).mean()
    assert once[Site(0, "q")].tobytes() == again[Site(0, "q")].tobytes()


def array(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def test_a_site_is_divided_by_the_devices_that_adapted_it_by_hand() -> None:
    # Both adapt q with 2 B A = [[2]] and [[6]]: mean 4. Only the first adapts k, with 2 * 5 = 10,
    # which stays 10 and does not shrink to 5.
    q, k = Site(0, "q"), Site(0, "k")
    one, three, five = array([1]), array([3]), array([5])
    first = {q: Factors(a=one, b=one), k: Factors(a=one, b=five)}
    update = updated(
        [
            Patch(release=0, alpha=2.0, factors=first),
            Patch(release=0, alpha=2.0, factors={q: Factors(a=three, b=one)}),
        ]
    )
    assert update.counts == {q: 2, k: 1}
    assert update.mean()[q].item() == 4
    assert update.mean()[k].item() == 10
    assert mean_norm(update) == pytest.approx(math.sqrt(4**2 + 10**2))


def test_averaging_factors_would_be_wrong_by_hand() -> None:
    # (B, A) = (1, 1) and (-1, -1) are the same update 1, but their mean factors are 0 and 0.
    site = Site(0, "q")
    plus, minus = array([1]), array([-1])
    same = [
        Patch(release=0, alpha=1.0, factors={site: Factors(a=side, b=side)})
        for side in (plus, minus)
    ]
    assert updated(same).mean()[site].item() == 1


def test_the_scale_of_each_patch_is_its_own_by_hand() -> None:
    # alpha 4 at rank 1 is scale 4, at rank 2 it is 2: updates 4 * 1 and 2 * (1 + 1), both 4.
    # Forgetting the ranks would weigh them 1 to 2.
    site = Site(0, "q")
    one = Factors(a=array([1]), b=array([1]))
    two = Factors(a=array([1], [1]), b=array([1, 1]))
    patches = [Patch(release=0, alpha=4.0, factors={site: item}) for item in (one, two)]
    assert updated(patches).mean()[site].item() == 4


def test_nothing_adapted_is_nothing() -> None:
    assert ExactMean().open().mean() == {}
    assert mean_norm(ExactMean().open()) == 0


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), ranks=st.lists(st.integers(1, 8), min_size=1, max_size=7))
def test_stack_is_the_weighted_mean_of_effective_updates(seed: int, ranks: list[int]) -> None:
    patches, weights = fleet(seed, ranks)
    # small fleets stay in factors, large ones are summed as matrices, of single-precision products
    assert error(added(ExactMean(), patches, weights).updates(), truth(patches, weights)) <= 1e-6


def test_pitfall_1_products_without_their_scale_are_wrong() -> None:
    patches, weights = fleet(1, (2, 3, 6))
    forgotten = [replace(one, alpha=float(one.ranks[SITE])) for one in patches]
    assert error(added(ExactMean(), forgotten, weights).updates(), truth(patches, weights)) > 0.3


def test_pitfall_4_a_stack_has_the_ranks_of_those_that_took_part() -> None:
    patches, weights = fleet(1, (1, 3, 2))
    found = added(ExactMean(), patches, weights).updates()
    assert {site: update.rank for site, update in found.items()} == {SITE: 6, OTHER: 3}
