"""Averages of factors: inexact, and exact with their residual."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Matrix, Update
from fleettune.deltas.rejections import RejectedError, Rejection
from strategies.aggregation import (
    FactorMean,
    ZeroPad,
)
from strategies.aggregation.published.factor_averaging import fedex_residual
from tests.strategies.aggregation.deltas import (
    SITE,
    added,
    drawn,
    error,
    fleet,
    patch,
    truth,
)


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


def test_pitfall_3_every_device_is_in_a_mean_of_factors_by_hand() -> None:
    # FLoRA's FedIT kept the first device's factors alone
    def of(a: float, b: float) -> Patch:
        item = Factors(a=np.full((1, 1), a, np.float32), b=np.full((1, 1), b, np.float32))
        return Patch(release=0, alpha=1.0, factors={SITE: item})

    mean = added(FactorMean(), [of(1, 2), of(3, 4), of(5, 12)], [1.0, 1.0, 2.0]).updates()[SITE]
    assert mean.dense().item() == ((1 + 3 + 2 * 5) / 4) * ((2 + 4 + 2 * 12) / 4)


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


def test_unlike_alphas_are_refused_where_the_scale_of_one_alpha_is_taken() -> None:
    rng = np.random.default_rng(0)
    first, second = patch(rng, 2, 8.0, [SITE]), patch(rng, 3, 16.0, [SITE])
    aggregate = added(ZeroPad(rank=4, folded=False), [first], [1.0])
    told = (
        "0.q must have alpha 8, as the devices before, got 16: give all devices one alpha, or set "
        "aggregation.folded=true"
    )
    with pytest.raises(RejectedError, match=re.escape(told)) as caught:
        aggregate.add(second, 1.0)
    assert caught.value.reason is Rejection.UNLIKE_RANK
    assert aggregate.counts == {SITE: 1}
    # unlike ranks of one alpha are what padding is for; folded, any alpha goes
    aggregate.add(patch(rng, 3, 8.0, [SITE]), 1.0)
    assert aggregate.counts == {SITE: 2}
    assert added(ZeroPad(rank=4), [first, second], [1.0, 1.0]).counts == {SITE: 2}
