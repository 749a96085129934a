"""Rules of aggregation: which are exact, and every pitfall of that applies here.

Source: docs/methods.md#pitfalls-of-aggregation.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.tuning.first_patch import warm_start
from fleettune.adapters.factors import Factors, Tied
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Matrix, Update, total_norm, updates_of
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.shapes import Site
from strategies.aggregation.clipping import NormClip
from strategies.aggregation.exact_mean import Aggregate, Aggregation, ExactMean
from strategies.aggregation.factor_averaging import FactorMean, ZeroPad, fedex_residual
from strategies.aggregation.ffa import Ffa
from strategies.aggregation.fleet_patch import grow_fleet_patch
from strategies.aggregation.robust import MedianOfMeans, SketchAggregate, TrimmedMean
from strategies.aggregation.svd import Svd

SITE, OTHER = Site(0, "q"), Site(1, "down")
SHAPE = (24, 24)
"""Square, as query and value often are: a transposed matrix fits without a complaint."""


def drawn(rng: np.random.Generator, rank: int, shape: tuple[int, int] = SHAPE) -> Factors:
    a, b = rng.normal(size=(rank, shape[1])), rng.normal(size=(shape[0], rank))
    return Factors(a=a.astype(np.float32), b=b.astype(np.float32))


def patch(rng: np.random.Generator, rank: int, alpha: float, sites: Sequence[Site]) -> Patch:
    factors = {site: drawn(rng, rank) for site in sites}
    return Patch(release=0, alpha=alpha, factors=factors)


def fleet(seed: int, ranks: Sequence[int] = (2, 3, 6)) -> tuple[list[Patch], list[float]]:
    """Devices of unlike ranks, scales, supports and weights."""
    rng = np.random.default_rng(seed)
    patches = [
        patch(rng, rank, float(rng.integers(1, 30)), [SITE, OTHER][: 1 + place % 2])
        for place, rank in enumerate(ranks)
    ]
    return patches, [float(weight) for weight in rng.integers(1, 9, size=len(ranks))]


def added(rule: Aggregation, patches: Sequence[Patch], weights: Sequence[float]) -> Aggregate:
    aggregate = rule.open()
    for one, weight in zip(patches, weights, strict=True):
        aggregate.add(one, weight)
    return aggregate


def effective(one: Patch, site: Site) -> Matrix:
    """``alpha / rank * B A`` in double precision, with nothing of ours."""
    item = one.untie().factors[site]
    scale = one.alpha / item.a.shape[0]
    return scale * item.b.astype(np.float64) @ item.a.astype(np.float64)


def truth(patches: Sequence[Patch], weights: Sequence[float]) -> dict[Site, Matrix]:
    """The weighted mean of effective updates over the devices that adapted a site."""
    found: dict[Site, Matrix] = {}
    for site in (SITE, OTHER):
        own = [(one, w) for one, w in zip(patches, weights, strict=True) if site in one.ranks]
        if own:
            total = sum(weight for _, weight in own)
            parts = [weight * effective(one, site) for one, weight in own]
            found[site] = np.sum(parts, axis=0) / total
    return found


def error(found: dict[Site, Update], wanted: dict[Site, Matrix]) -> float:
    """Largest relative Frobenius error of any site."""
    assert found.keys() == wanted.keys()
    return max(
        float(np.linalg.norm(found[site].dense() - value) / np.linalg.norm(value))
        for site, value in wanted.items()
    )


def with_shared_a(patches: Sequence[Patch], seed: int) -> list[Patch]:
    """The same B over one A per site, as FFA trains them; one rank, own scales."""
    rng = np.random.default_rng(seed)
    shared = {site: drawn(rng, 3).a for site in (SITE, OTHER)}
    return [
        replace(
            one,
            factors={s: Factors(a=shared[s], b=drawn(rng, 3).b) for s in one.factors},
        )
        for one in patches
    ]


# exact rules


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), ranks=st.lists(st.integers(1, 8), min_size=1, max_size=7))
def test_stack_is_the_weighted_mean_of_effective_updates(seed: int, ranks: list[int]) -> None:
    patches, weights = fleet(seed, ranks)
    # small fleets stay in factors, large ones are summed as matrices, of single-precision products
    assert error(added(ExactMean(), patches, weights).updates(), truth(patches, weights)) <= 1e-6


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 999))
def test_ffa_is_exact_over_one_shared_a_whatever_the_scales(seed: int) -> None:
    patches, weights = fleet(seed)
    shared = with_shared_a(patches, seed)
    assert error(added(Ffa(), shared, weights).updates(), truth(shared, weights)) <= 1e-6


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 999))
def test_a_mean_of_factors_with_its_residual_is_exact(seed: int) -> None:
    patches, weights = fleet(seed)
    padded = added(ZeroPad(rank=6), patches, weights).updates()
    rest = fedex_residual(patches, weights, padded)
    whole = {
        site: Update(
            left=np.concatenate([padded[site].left, rest[site].left], axis=1),
            right=np.concatenate([padded[site].right, rest[site].right]),
        )
        for site in padded
    }
    wanted = truth(patches, weights)
    assert error(padded, wanted) > 0.1
    assert error(whole, wanted) <= 1e-6


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 999), rank=st.integers(1, 8), devices=st.integers(1, 40))
def test_svd_is_the_truncated_svd_of_the_dense_mean(seed: int, rank: int, devices: int) -> None:
    # up to 40 devices of rank 2 to 6: the stack is shortened on the way, and loses nothing
    patches, weights = fleet(seed, [2 + place % 5 for place in range(devices)])
    aggregate = Svd(rank=rank).open()
    for one, weight in zip(patches, weights, strict=True):
        aggregate.add(one, weight)
    found = aggregate.updates()
    assert max(aggregate.left_out.values()) <= 1e-9
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
    assert aggregate.left_out[SITE] > 0
    assert apart <= np.linalg.norm(s[4:]) + 2 * aggregate.left_out[SITE]


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


def test_only_exact_rules_say_that_they_are() -> None:
    exact = {type(rule).__name__ for rule in EVERY if rule.is_exact}
    assert exact == {"ExactMean", "Ffa"}


# pitfalls of docs/methods.md#pitfalls-of-aggregation, by their numbers


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


def test_pitfall_1_products_without_their_scale_are_wrong() -> None:
    patches, weights = fleet(1, (2, 3, 6))
    forgotten = [replace(one, alpha=float(one.ranks[SITE])) for one in patches]
    assert error(added(ExactMean(), forgotten, weights).updates(), truth(patches, weights)) > 0.3


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


def test_pitfall_3_every_device_is_in_a_mean_of_factors_by_hand() -> None:
    # FLoRA's FedIT kept the first device's factors alone
    def of(a: float, b: float) -> Patch:
        item = Factors(a=np.full((1, 1), a, np.float32), b=np.full((1, 1), b, np.float32))
        return Patch(release=0, alpha=1.0, factors={SITE: item})

    mean = added(FactorMean(), [of(1, 2), of(3, 4), of(5, 12)], [1.0, 1.0, 2.0]).updates()[SITE]
    assert mean.dense().item() == ((1 + 3 + 2 * 5) / 4) * ((2 + 4 + 2 * 12) / 4)


def test_pitfall_4_a_stack_has_the_ranks_of_those_that_took_part() -> None:
    patches, weights = fleet(1, (1, 3, 2))
    found = added(ExactMean(), patches, weights).updates()
    assert {site: update.rank for site, update in found.items()} == {SITE: 6, OTHER: 3}


def test_pitfall_5_the_residual_is_not_transposed() -> None:
    patches, weights = fleet(5)
    averaged = added(ZeroPad(rank=6), patches, weights).updates()
    rest = fedex_residual(patches, weights, averaged)[SITE].dense()
    wanted, mean = truth(patches, weights)[SITE], averaged[SITE].dense()

    def apart(found: Matrix) -> float:
        return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))

    # on a square matrix the transposed one fits, and is worse than none
    assert apart(mean + rest) < 1e-6 < apart(mean) < apart(mean + rest.T)
    rng = np.random.default_rng(0)
    oblong = Patch(release=0, alpha=1.0, factors={SITE: drawn(rng, 2, (5, 9))})
    more = replace(oblong, factors={SITE: drawn(rng, 2, (5, 9))})
    mean_of = added(FactorMean(), [oblong, more], [1.0, 1.0]).updates()
    assert fedex_residual([oblong, more], [1.0, 1.0], mean_of)[SITE].dense().shape == (5, 9)


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


def test_pitfall_7_a_delta_is_clipped_by_its_effective_norm_and_before_the_mean() -> None:
    patches, weights = fleet(7)
    norms = [total_norm(updates_of(one).values()) for one in patches]
    limit = sorted(norms)[1]
    clipped = [
        replace(one, alpha=one.alpha * min(1.0, limit / norm))
        for one, norm in zip(patches, norms, strict=True)
    ]
    found = added(NormClip(norm=limit), patches, weights).updates()
    assert error(found, truth(clipped, weights)) <= 1e-6
    # one loud device moves a mean by no more than its share of the limit
    loud = replace(patches[0], alpha=1e6)
    quiet = added(NormClip(norm=1.0), [loud, *patches[1:]], [1.0, 1.0, 1.0]).updates()
    assert total_norm(quiet.values()) <= 1.0 + 1e-6


def test_pitfall_8_sketches_have_one_length_whatever_the_ranks() -> None:
    patches, _ = fleet(8, (1, 4, 7))
    aggregate = SketchAggregate(rule=MedianOfMeans(groups=9, columns=10))
    for one in patches:
        aggregate.add(one)
    assert {kept.shape for kept in aggregate.sites[SITE].kept} == {(24, 10)}


def test_pitfall_9_a_site_that_a_device_skipped_does_not_shrink() -> None:
    rng = np.random.default_rng(9)
    both, one = patch(rng, 2, 2.0, [SITE, OTHER]), patch(rng, 2, 2.0, [SITE])
    for rule in (ExactMean(), Svd(rank=24), ZeroPad(rank=2), FactorMean()):
        aggregate = added(rule, [both, one], [2.0, 6.0])
        assert aggregate.counts == {SITE: 2, OTHER: 1}
        found = aggregate.updates()[OTHER].dense()
        np.testing.assert_allclose(found, effective(both, OTHER), atol=1e-5)
    # the other convention, a common denominator, would give a quarter of it


def test_pitfall_9_tied_factors_count_by_what_they_do_at_every_site() -> None:
    rng = np.random.default_rng(9)
    up, up_below = Site(1, "up"), Site(0, "up")
    vectors = {
        site: (rng.normal(size=2).astype(np.float32), rng.normal(size=24).astype(np.float32))
        for site in (up_below, up)
    }
    tied = Tied(pair=drawn(rng, 2), alpha=8.0, vectors=vectors)
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


# memory, order, faults

EVERY: tuple[Aggregation, ...] = (
    ExactMean(),
    Svd(rank=4, working_rank=12),
    Ffa(),
    FactorMean(),
    ZeroPad(rank=8),
    NormClip(norm=50.0),
    TrimmedMean(trim=2, columns=16),
    MedianOfMeans(groups=5, columns=16),
)


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


def test_trimmed_means_and_medians_are_those_of_the_coordinates_of_a_rotation() -> None:
    patches = [replace(one, alpha=4.0) for one in fleet(4, [4] * 7)[0]]
    trimmed = added(TrimmedMean(trim=2, columns=24), patches, [1.0] * 7)
    assert isinstance(trimmed, SketchAggregate)
    basis = trimmed.sites[SITE].basis
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
