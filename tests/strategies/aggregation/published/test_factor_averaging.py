"""Averages of factors: inexact, and exact with their residual."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fleettune.adapters.factors import Factors
from fleettune.adapters.patch import Patch
from fleettune.deltas.rejections import RejectedError, Rejection
from strategies.aggregation import (
    FactorMean,
    ZeroPad,
)
from tests.strategies.aggregation.deltas import (
    SITE,
    added,
    patch,
)


def test_pitfall_3_every_device_is_in_a_mean_of_factors_by_hand() -> None:
    # FLoRA's FedIT kept the first device's factors alone
    def of(a: float, b: float) -> Patch:
        item = Factors(a=np.full((1, 1), a, np.float32), b=np.full((1, 1), b, np.float32))
        return Patch(release=0, alpha=1.0, factors={SITE: item})

    mean = added(FactorMean(), [of(1, 2), of(3, 4), of(5, 12)], [1.0, 1.0, 2.0]).updates()[SITE]
    assert mean.dense().item() == ((1 + 3 + 2 * 5) / 4) * ((2 + 4 + 2 * 12) / 4)


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
