"""Sampling: keyed, without replacement, and as cheap for ten million devices as for ten."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.tuning.schedule import Tuning
from fleettune.data.tokens import Example
from fleettune.seeds import Purpose, stream
from strategies.rounds.sampling import Panel, Uniform


@settings(derandomize=True)
@given(
    registered=st.integers(1, 200),
    sampled=st.integers(1, 50),
    night=st.integers(0, 99),
    seed=st.integers(0, 10**6),
)
def test_a_uniform_sample_has_its_size_no_device_twice_and_registry_order(
    registered: int, sampled: int, night: int, seed: int
) -> None:
    devices = range(1, registered + 1)
    chosen = Uniform(sampled=sampled).choose(devices, night, seed)
    assert len(chosen) == min(sampled, registered)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(devices)
    assert chosen == Uniform(sampled=sampled).choose(devices, night, seed)


def test_every_night_and_every_seed_draws_anew() -> None:
    devices, sampling = range(1000), Uniform(sampled=20)
    drawn = {tuple(sampling.choose(devices, night, seed)) for night in range(5) for seed in (0, 1)}
    assert len(drawn) == 10


def test_other_random_numbers_change_nothing() -> None:
    before = Uniform(sampled=5).choose(range(100), 3, 7)
    np.random.default_rng(0).random(1000)
    assert Uniform(sampled=5).choose(range(100), 3, 7) == before


def test_every_device_is_chosen_equally_often() -> None:
    nights, registered, sampled = 4000, 20, 5
    counts = np.zeros(registered)
    for night in range(nights):
        counts[Uniform(sampled=sampled).choose(range(registered), night, 0)] += 1
    share = sampled / registered
    # Each count is binomial; 4 standard deviations, with a fixed seed, so no flake.
    spread = np.sqrt(nights * share * (1 - share))
    assert np.abs(counts - nights * share).max() < 4 * spread


def test_the_cost_of_a_sample_does_not_grow_with_the_registry() -> None:
    Uniform(sampled=10).choose(range(10), 0, 0)  # whatever is imported or cached once
    tracemalloc.start()
    chosen = Uniform(sampled=10).choose(range(10**7), 0, 0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(chosen) == 10
    assert max(chosen) > 10**5
    # A list or an array of ten million ids would take 80 MB.
    assert peak_bytes < 100_000


def test_a_panel_is_everybody_every_night() -> None:
    assert Panel().choose(range(1, 6), 0, 0) == Panel().choose(range(1, 6), 9, 4) == [1, 2, 3, 4, 5]


def test_a_sample_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="sampled must be >= 1 device, got 0"):
        Uniform(sampled=0)


def test_pitfall_12_who_takes_part_says_nothing_about_which_exchanges_train() -> None:
    # one stream keyed by the round for both gives equal buffers equal rows every round, see
    # docs/methods.md#pitfalls-of-aggregation
    tuning = Tuning(steps=8, batch=4, learning_rate=1e-2, clip=1.0)
    examples = [Example(tokens=(place,), prompt=0) for place in range(32)]

    def rows(device: int, release: int) -> list[tuple[Example, ...]]:
        return list(tuning.batches(examples, stream(5, Purpose.TUNING, device, release)))

    drawn = [rows(device, release) for device in range(3) for release in range(3)]
    assert all(one != other for one, other in combinations(drawn, 2))
    # and nobody's depends on what else was drawn
    chosen = Uniform(sampled=3).choose(range(9), 0, 5)
    assert rows(0, 0) == drawn[0]
    assert Uniform(sampled=3).choose(range(9), 0, 5) == chosen
