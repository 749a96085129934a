"""FFA: exact over one shared A."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.aggregation import (
    Ffa,
)
from tests.strategies.aggregation.deltas import (
    added,
    error,
    fleet,
    truth,
    with_shared_a,
)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 999))
def test_ffa_is_exact_over_one_shared_a_whatever_the_scales(seed: int) -> None:
    patches, weights = fleet(seed)
    shared = with_shared_a(patches, seed)
    assert error(added(Ffa(), shared, weights).updates(), truth(shared, weights)) <= 1e-6
