"""Benefits by hand, alignment and its groups, Kendall's tau against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.placement.benefits import aligned_groups, alignment, benefits, kendall_tau
from fleettune.jobs.jobs import ProbeResult
from fleettune.shapes import Site

ONE, TWO, THREE = Site(0, "q"), Site(1, "q"), Site(1, "up")


def result(**gradients: list[list[float]]) -> ProbeResult:
    arrays = {
        Site(int(name[1]), name[2:]): np.array(rows, dtype=np.float32)
        for name, rows in gradients.items()
    }
    return ProbeResult(
        benefit={site: float((array**2).sum()) for site, array in arrays.items()}, gradients=arrays
    )


def test_gradients_that_pull_apart_cancel_but_not_in_fisher_information() -> None:
    first, second = result(l0q=[[3.0], [4.0]]), result(l0q=[[-3.0], [4.0]])
    # sums to (0, 8): 64; separately 25 each
    assert benefits([first, second], "gradient") == {ONE: 64.0}
    assert benefits([first, second], "fisher") == {ONE: 50.0}


def test_alignment_by_hand() -> None:
    x, y = np.array([[1, 0]], dtype=np.float32), np.array([[0, 1]], dtype=np.float32)
    assert alignment([x, x, x]) == pytest.approx(1.0)
    assert alignment([x, y]) == pytest.approx(0.5)
    assert alignment([x, -x]) == 0.0
    assert alignment([x, 3 * x]) == pytest.approx(16 / 20)
    assert alignment([0 * x, 0 * x]) == 0.0


def test_sites_of_one_type_share_where_they_agree() -> None:
    x, y = np.array([[1, 0]], dtype=np.float32), np.array([[0, 1]], dtype=np.float32)
    gradients = {ONE: x, TWO: 2 * x, THREE: x, Site(2, "q"): y}
    assert aligned_groups(gradients, 0.8) == ((ONE, TWO),)
    assert aligned_groups(gradients, 0.95) == ()
    # all three q: ||(3, 1)||^2 / (3 * 6) = 10 / 18
    assert aligned_groups(gradients, 0.6) == ((ONE, TWO),)
    assert aligned_groups(gradients, 0.5) == ((ONE, TWO, Site(2, "q")),)


def test_tau_by_hand() -> None:
    a = {ONE: 1.0, TWO: 2.0, THREE: 3.0}
    assert kendall_tau(a, a) == 1.0
    assert kendall_tau(a, {site: -value for site, value in a.items()}) == -1.0
    # of three pairs one is turned
    assert kendall_tau(a, {ONE: 2.0, TWO: 1.0, THREE: 3.0}) == pytest.approx(1 / 3)
    # one pair of b is tied: 2 concordant over sqrt(3 * 2)
    assert kendall_tau(a, {ONE: 1.0, TWO: 1.0, THREE: 3.0}) == pytest.approx(2 / 6**0.5)


@settings(derandomize=True, deadline=None)
@given(st.permutations(range(8)))
def test_tau_counts_pairs(turn: list[int]) -> None:
    sites = [Site(layer, "q") for layer in range(8)]
    a = {site: float(place) for place, site in enumerate(sites)}
    b = {site: float(place) for place, site in zip(turn, sites, strict=True)}
    signs = [np.sign((a[x] - a[y]) * (b[x] - b[y])) for x, y in itertools.combinations(sites, 2)]
    assert kendall_tau(a, b) == pytest.approx(sum(signs) / len(signs))


def test_rankings_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="same two or more sites, got 1 and 1"):
        kendall_tau({ONE: 1.0}, {ONE: 1.0})
    with pytest.raises(ValueError, match="same two or more sites"):
        kendall_tau({ONE: 1.0, TWO: 1.0}, {ONE: 1.0, THREE: 1.0})
    with pytest.raises(ValueError, match="ties alone"):
        kendall_tau({ONE: 1.0, TWO: 1.0}, {ONE: 1.0, TWO: 2.0})
