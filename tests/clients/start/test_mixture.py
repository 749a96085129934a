"""Which entries shares lead to and at what weight, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.start.mixture import Mixture, start_from_shares
from clients.start.placing import Start, assemble
from fleettune.shapes import Site
from tests.clients.start.test_nearest_entry import manifest, patch

RULE = Mixture(second=0.5, least=0.3, strength=0.6)


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
