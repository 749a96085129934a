"""Clipping: by the effective norm, and before the mean."""

from __future__ import annotations

from dataclasses import replace

from fleettune.adapters.updates import total_norm, updates_of
from strategies.aggregation import (
    NormClip,
)
from tests.strategies.aggregation.deltas import (
    added,
    error,
    fleet,
    truth,
)


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
