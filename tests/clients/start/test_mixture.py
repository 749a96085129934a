"""Shares of entries and the start that they lead to, by hand and as likelihoods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clients.start.mixture import ITERATIONS, Mixture, entry_shares, start_from_shares
from clients.start.placing import Start, assemble
from fleettune.shapes import Site
from tests.clients.start.offered import manifest, patch

RULE = Mixture(second=0.5, least=0.3, strength=0.6)
PLACES = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0]])


def started(*shares: float) -> Start:
    return start_from_shares(np.array(shares), manifest(), RULE)


def test_the_largest_share_is_the_entry_and_its_weight() -> None:
    found = started(0.1, 0.7, 0.2, 0.0)
    assert (found.entries, found.wanted) == ((1,), ("digest1",))
    assert found.weights == pytest.approx((0.42,))
    assert found.distance == pytest.approx(0.3)


def test_a_second_entry_is_added_where_its_share_is_near_the_first() -> None:
    found = started(0.5, 0.1, 0.4, 0.0)
    assert found.entries == (0, 2)
    assert found.weights == pytest.approx((0.3, 0.24))


def test_small_shares_lead_to_scratch_and_ties_to_the_first_entry() -> None:
    nowhere = started(0.25, 0.25, 0.25, 0.25)
    assert (nowhere.entries, nowhere.wanted) == ((), ())
    assert nowhere.distance == pytest.approx(0.75)
    tied = start_from_shares(np.array([0.5, 0.5]), manifest(np.eye(2)), replace(RULE, second=2.0))
    assert tied.entries == (0,)


def test_a_part_of_a_patch_is_that_part_of_its_update() -> None:
    found = assemble(started(0.0, 0.0, 1.0, 0.0), [patch(2.0)], rank=2, alpha=2.0)
    assert found is not None
    site = Site(0, "q")
    assert np.allclose(found.dense(site), 0.6 * patch(2.0).dense(site), atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"spread": 0.0}, r"start\.spread must be > 0"),
        ({"strength": -1.0}, r"start\.strength must be > 0"),
        ({"second": -0.1}, r"start\.second must be >= 0"),
        ({"least": 1.5}, r"start\.least must be a share"),
        ({"answers": "some"}, r"answers must be one of"),
    ],
)
def test_wrong_values_are_told(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Mixture(**wrong)  # pyright: ignore[reportArgumentType] - wrong on purpose


def test_far_apart_entries_share_exchanges_by_counting() -> None:
    points = PLACES[[0, 0, 0, 1]] + 0.1
    assert entry_shares(points, PLACES, 1.0) == pytest.approx([0.75, 0.25, 0.0], abs=1e-6)


def test_one_step_is_bayes_rule_and_the_rest_repeats_it() -> None:
    """One exchange at 1, entries at 0 and 2: even by symmetry. At 0: odds of e^(4 / 2) to 1."""
    places = np.array([[0.0], [2.0]])
    assert entry_shares(np.array([[1.0]]), places, 1.0) == pytest.approx([0.5, 0.5])
    odds = np.exp(2.0) ** ITERATIONS
    assert entry_shares(np.array([[0.0]]), places, 1.0)[0] == pytest.approx(odds / (1 + odds))


def test_the_mean_of_mixed_exchanges_may_be_nearest_to_an_entry_that_none_is_in() -> None:
    """Six tenths at (4, 0), four at (-4, 0): the mean is (0.8, 0), next to an entry at (0, 1)."""
    places = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 1.0]])
    points = places[[0] * 6 + [1] * 4]
    assert np.linalg.norm(points.mean(axis=0) - places, axis=1).argmin() == 2
    assert entry_shares(points, places, 1.0) == pytest.approx([0.6, 0.4, 0.0], abs=1e-3)


@given(arrays(np.float64, (6, 2), elements=st.floats(-6, 6)), st.floats(0.5, 4.0))
def test_shares_sum_to_one_and_no_other_guess_is_likelier(
    points: np.ndarray, spread: float
) -> None:
    found = entry_shares(points, PLACES, spread)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    squares = np.square(points[:, None] - PLACES[None]).sum(axis=2)
    likely = np.exp(-squares / spread / 2)

    def fit(shares: np.ndarray) -> float:
        return float(np.log(likely @ shares).sum())

    even = np.full(len(PLACES), 1 / len(PLACES))
    # every step of expectation and maximisation makes the exchanges likelier or leaves them
    assert fit(found) >= fit(even) - 1e-9


@given(st.permutations(range(5)))
def test_the_order_of_exchanges_does_not_matter(order: list[int]) -> None:
    points = np.array([[3.0, 1.0], [-2.0, 0.5], [0.0, 2.0], [1.0, 1.0], [4.0, -1.0]])
    # sums in another order round differently
    assert entry_shares(points[order], PLACES, 1.5) == pytest.approx(
        entry_shares(points, PLACES, 1.5), abs=1e-9
    )


def test_nothing_to_share_is_told() -> None:
    with pytest.raises(ValueError, match="got 0 and 3"):
        entry_shares(np.zeros((0, 2)), PLACES, 1.0)
    with pytest.raises(ValueError, match=r"start\.spread must be > 0"):
        entry_shares(PLACES, PLACES, 0.0)
