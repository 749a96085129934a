"""Benefits by hand, alignment and its groups."""

from __future__ import annotations

import numpy as np
import pytest

from clients.placement.benefits import alignment, benefits, group_aligned
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
    assert group_aligned(gradients, 0.8) == ((ONE, TWO),)
    assert group_aligned(gradients, 0.95) == ()
    # all three q: ||(3, 1)||^2 / (3 * 6) = 10 / 18
    assert group_aligned(gradients, 0.6) == ((ONE, TWO),)
    assert group_aligned(gradients, 0.5) == ((ONE, TWO, Site(2, "q")),)
