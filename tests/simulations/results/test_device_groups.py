"""Groups hold every device once, and their numbers can be worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.results.device_groups import compare_groups, group_by_class, stratify_by_data
from simulations.results.device_means import PerDevice


def arrivals(amounts: list[int]) -> pl.DataFrame:
    """Rows of two rounds; all but one exchange of a device arrive in the first."""
    rows = [
        {"device": device, "arrived": part}
        for device, amount in enumerate(amounts)
        for part in (amount - 1, 1)
    ]
    return pl.DataFrame(rows, schema={"device": pl.Int64, "arrived": pl.Int64})


def per_device(devices: list[int], joules: list[float], quality: list[float]) -> PerDevice:
    return PerDevice(
        devices=np.array(devices), energy_j=np.array(joules), quality=np.array(quality)
    )


def test_strata_are_thirds_by_what_arrived_in_all_rounds() -> None:
    found = stratify_by_data(arrivals([9, 4, 4, 30, 7, 2, 4]))
    # in order: device 5 wrote 2, devices 1, 2 and 6 wrote 4 each, 4 wrote 7, 0 wrote 9, 3 wrote 30
    assert {name: one.devices.tolist() for name, one in found.items()} == {
        "light": [5, 1, 2],
        "middle": [6, 4],
        "heavy": [0, 3],
    }
    assert {name: one.exchanges for name, one in found.items()} == {
        "light": (2, 4),
        "middle": (4, 7),
        "heavy": (9, 30),
    }


def test_two_devices_have_two_strata() -> None:
    assert list(stratify_by_data(arrivals([3, 1]))) == ["light", "middle"]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_strata_hold_every_device_once_and_never_overlap(amounts: list[int]) -> None:
    found = list(stratify_by_data(arrivals(amounts)).values())
    held = np.concatenate([one.devices for one in found])
    assert sorted(held.tolist()) == list(range(len(amounts)))
    sizes = [len(one.devices) for one in found]
    assert max(sizes) - min(sizes) <= 1
    for lower, upper in pairwise(found):
        assert lower.exchanges[1] <= upper.exchanges[0]


def test_a_group_compares_its_own_devices_alone() -> None:
    rows = pl.DataFrame(
        {
            "device": [0, 0, 1, 1, 2, 2],
            "profile": ["old", "old", "new", "new", "new", "new"],
            "decision": ["retune", "retune", "retune", "reuse", "none", "reuse"],
        }
    )
    arm = per_device([0, 1, 2], [8.0, 10.0, 5.0], [0.5, 0.6, 0.8])
    reference = per_device([0, 1, 2], [10.0, 20.0, 40.0], [0.7, 0.5, 0.8])
    classes = group_by_class(rows)
    assert {name: one.tolist() for name, one in classes.items()} == {"new": [1, 2], "old": [0]}
    found = compare_groups(rows, (arm, reference), {**classes, "none": np.array([9])}, seed=1)
    assert list(found) == ["new", "old"]
    assert found["new"]["devices"] == 2
    assert found["new"]["energy_saving"]["mean"] == pytest.approx(0.75)  # 1 - 15 / 60
    # device 1 saves 1 - 10 / 20, device 2 1 - 5 / 40; each drawn twice is likely
    assert found["new"]["energy_saving"]["ci95"] == [0.5, 0.875]
    assert found["new"]["quality_difference"]["mean"] == pytest.approx(0.05)  # (0.1 + 0) / 2
    assert found["new"]["retunes_per_device"] == 0.5
    assert found["old"]["energy_saving"] == {"mean": pytest.approx(0.2), "ci95": [None, None]}
    assert found["old"]["retunes_per_device"] == 2.0


def test_a_device_that_the_reference_lacks_is_in_no_group() -> None:
    rows = pl.DataFrame({"device": [0, 1], "decision": ["retune", "retune"]})
    arm = per_device([0, 1], [1.0, 1.0], [0.5, 0.5])
    reference = per_device([0], [2.0], [0.5])
    found = compare_groups(rows, (arm, reference), {"all": np.array([0, 1])}, seed=1)
    assert (found["all"]["devices"], found["all"]["retunes_per_device"]) == (1, 1.0)
