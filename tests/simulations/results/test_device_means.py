"""Intervals of a study resample its seeds, then the devices of each drawn seed."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.results.device_means import APART, draw_devices, estimate_mean


def people(*sizes: int) -> np.ndarray:
    return np.concatenate([np.arange(size) + APART * seed for seed, size in enumerate(sizes)])


@pytest.mark.parametrize("sizes", [(4, 4, 4), (3, 5, 2)])
def test_a_resample_draws_seeds_and_then_devices_of_the_drawn_seeds(sizes: tuple[int, ...]) -> None:
    devices = people(*sizes)
    index = draw_devices(np.random.default_rng(1), devices, 4000)
    assert index.shape == (4000, len(devices))
    drawn = devices[index] // APART
    start = 0
    for own in sizes:
        block = drawn[:, start : start + own]
        # all of a block come from one seed, and each seed stands there equally often
        assert (block == block[:, :1]).all()
        assert np.bincount(block[:, 0]) / 4000 == pytest.approx(1 / 3, abs=0.03)
        start += own
    # within a seed every device is drawn equally often
    counts = np.bincount(index.ravel(), minlength=len(devices))
    for seed in range(len(sizes)):
        own = counts[devices // APART == seed]
        assert own / own.mean() == pytest.approx(1.0, abs=0.1)


def test_one_seed_is_resampled_as_ever() -> None:
    found = draw_devices(np.random.default_rng(7), np.arange(5), 10)
    assert np.array_equal(found, np.random.default_rng(7).integers(5, size=(10, 5)))


def test_devices_that_are_alike_within_a_seed_say_no_more_than_the_seed() -> None:
    """Five seeds of 40 equal devices are five observations; the interval must say so."""
    devices = people(40, 40, 40, 40, 40)
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])[devices // APART]
    nested = estimate_mean(values, devices, seed=0)
    as_one = estimate_mean(values, np.arange(200), seed=0)
    assert nested["mean"] == as_one["mean"] == 2.0
    # the standard error of five numbers of variance 2 is sqrt(2 / 5), of 200 devices sqrt(2 / 200)
    for found, error in ((nested, (2 / 5) ** 0.5), (as_one, (2 / 200) ** 0.5)):
        low, high = found["ci95"]
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.12)
