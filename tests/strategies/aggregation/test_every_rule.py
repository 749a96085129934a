"""Every rule of aggregation: weights, supports, factorings, memory, order and faults."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fleettune.adapters.factors import Factors, TiedPair
from fleettune.adapters.patch import Patch
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.shapes import Site
from strategies.aggregation import (
    Aggregation,
    ExactMean,
    FactorMean,
    Ffa,
    MedianOfMeans,
    NormClip,
    Svd,
    TrimmedMean,
    ZeroPad,
)
from tests.strategies.aggregation.deltas import (
    EVERY,
    OTHER,
    SITE,
    added,
    drawn,
    effective,
    fleet,
    patch,
    with_shared_a,
)


def test_pitfall_2_the_weight_stands_on_one_factor_only() -> None:
    rng = np.random.default_rng(0)
    one = patch(rng, 2, 2.0, [SITE])
    nothing = replace(
        one, factors={SITE: Factors(a=one.factors[SITE].a, b=0 * one.factors[SITE].b)}
    )
    # of weight 1 and 3: a quarter of the update, a sixteenth with the weight on both factors
    for rule in (ExactMean(), Svd(rank=4), ZeroPad(rank=2), FactorMean(), Ffa()):
        mean = added(rule, [one, nothing], [1.0, 3.0]).updates()[SITE].dense()
        np.testing.assert_allclose(mean, effective(one, SITE) / 4, atol=1e-5)


def test_pitfall_6_weights_are_one_of_two_and_robust_rules_take_none() -> None:
    for rule in (ExactMean, Ffa, FactorMean):
        assert rule(weights="examples").weights == "examples"
        with pytest.raises(ValueError, match=r"aggregation.weights must be one of .* got 'tokens'"):
            rule(weights="tokens")
    patches, weights = fleet(1, (2, 2, 2, 2, 2))
    for rule in (TrimmedMean(trim=1, columns=24), MedianOfMeans(groups=5, columns=24)):
        assert rule.weights == "uniform"
        heavy = [1000 * weight for weight in weights]
        one, other = (added(rule, patches, w).updates()[SITE].dense() for w in (weights, heavy))
        np.testing.assert_array_equal(one, other)


def test_pitfall_9_a_site_that_a_device_skipped_does_not_shrink() -> None:
    rng = np.random.default_rng(9)
    both, one = patch(rng, 2, 2.0, [SITE, OTHER]), patch(rng, 2, 2.0, [SITE])
    for rule in (ExactMean(), Svd(rank=24), ZeroPad(rank=2), FactorMean()):
        aggregate = added(rule, [both, one], [2.0, 6.0])
        assert aggregate.counts == {SITE: 2, OTHER: 1}
        found = aggregate.updates()[OTHER].dense()
        np.testing.assert_allclose(found, effective(both, OTHER), atol=1e-5)


def test_pitfall_9_tied_factors_count_by_what_they_do_at_every_site() -> None:
    rng = np.random.default_rng(9)
    up, up_below = Site(1, "up"), Site(0, "up")
    vectors = {
        site: (rng.normal(size=2).astype(np.float32), rng.normal(size=24).astype(np.float32))
        for site in (up_below, up)
    }
    tied = TiedPair(pair=drawn(rng, 2), alpha=8.0, vectors=vectors)
    shared = Patch(release=0, alpha=3.0, factors={SITE: drawn(rng, 2)}, ties=(tied,))
    own = patch(rng, 3, 5.0, [up])
    for rule in (ExactMean(), Svd(rank=24), NormClip(norm=1e9)):
        found = added(rule, [shared, own], [1.0, 1.0]).updates()
        assert found.keys() == {SITE, up_below, up}
        u, v = (vector.astype(np.float64) for vector in vectors[up])
        pair = tied.pair.b.astype(np.float64) * u @ tied.pair.a.astype(np.float64)
        wanted = (8.0 / 2 * v[:, None] * pair + effective(own, up)) / 2
        # the vectors are multiplied into B in single precision
        np.testing.assert_allclose(found[up].dense(), wanted, atol=1e-4)


def turned(one: Patch, rng: np.random.Generator) -> Patch:
    """The same updates in other factors: ``B G`` and ``G^-1 A`` of an orthogonal G."""
    factors: dict[Site, Factors] = {}
    for site, item in one.factors.items():
        gauge = np.linalg.qr(rng.normal(size=(len(item.a), len(item.a)))).Q
        factors[site] = Factors(
            a=(gauge.T @ item.a).astype(np.float32), b=(item.b @ gauge).astype(np.float32)
        )
    return replace(one, factors=factors)


def test_pitfall_10_what_is_aggregated_does_not_depend_on_how_updates_are_factored() -> None:
    patches, weights = fleet(10, (4, 4, 4, 4, 4))
    patches = [replace(one, alpha=4.0) for one in patches]
    rng = np.random.default_rng(1)
    others = [turned(one, rng) for one in patches]
    wanted = {"ExactMean", "Svd", "NormClip", "TrimmedMean", "MedianOfMeans"}
    found: set[str] = set()
    for rule in EVERY:
        if isinstance(rule, Ffa):
            continue
        one, other = (added(rule, both, weights).updates()[SITE] for both in (patches, others))
        apart = np.linalg.norm(one.dense() - other.dense()) / one.norm()
        if apart < 1e-5:
            found.add(type(rule).__name__)
    assert found == wanted


def peak_bytes(rule: Aggregation, patches: Sequence[Patch], replies: int) -> int:
    gc.collect()
    tracemalloc.start()
    aggregate = rule.open()
    for place in range(replies):
        aggregate.add(patches[place % len(patches)], 1.0)
    aggregate.updates()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: type(rule).__name__)
def test_memory_does_not_grow_with_the_replies(rule: Aggregation) -> None:
    patches, _ = fleet(0, (4, 4, 4))
    patches = with_shared_a([replace(one, alpha=4.0) for one in patches], 0)
    few, many = (peak_bytes(rule, patches, replies) for replies in (100, 500))
    # 64 KiB of cycles may wait for the collector; 400 deltas more would be over three times that
    assert many <= 1.5 * few + 65_536
    assert 400 * patches[0].size_bytes > 200_000


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: type(rule).__name__)
def test_equal_deltas_in_equal_order_give_equal_bytes(rule: Aggregation) -> None:
    patches = with_shared_a([replace(one, alpha=4.0) for one in fleet(0, [4] * 9)[0]], 0)
    one, other = (added(rule, patches, [1.0] * 9).mean() for _ in range(2))
    assert {s: v.tobytes() for s, v in one.items()} == {s: v.tobytes() for s, v in other.items()}


def test_what_does_not_fit_a_rule_is_refused_and_nothing_of_it_is_added() -> None:
    rng = np.random.default_rng(0)
    first, second = patch(rng, 2, 2.0, [SITE, OTHER]), patch(rng, 2, 2.0, [SITE, OTHER])
    cases = (
        (Ffa(), second, Rejection.UNLIKE_A),
        # its first site fits, its second has another A
        (Ffa(), replace(second, factors={**first.factors, OTHER: second.factors[OTHER]}), None),
        (FactorMean(), patch(rng, 3, 2.0, [SITE]), Rejection.UNLIKE_RANK),
        (FactorMean(), patch(rng, 2, 3.0, [SITE]), Rejection.UNLIKE_RANK),
        (ZeroPad(rank=2), patch(rng, 3, 3.0, [SITE]), Rejection.UNLIKE_RANK),
    )
    for rule, wrong, reason in cases:
        aggregate = added(rule, [first], [1.0])
        before = {site: value.tobytes() for site, value in aggregate.mean().items()}
        with pytest.raises(RejectedError) as caught:
            aggregate.add(wrong, 1.0)
        assert caught.value.reason is (reason or Rejection.UNLIKE_A)
        assert aggregate.counts == {SITE: 1, OTHER: 1}
        assert {site: value.tobytes() for site, value in aggregate.mean().items()} == before
