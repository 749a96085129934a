"""Tuning: the batches of a tune cover the buffer epoch by epoch, under a step budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.tuning.schedule import Tuning
from fleettune.data.tokens import Example

TUNING = Tuning(steps=6, batch=4, learning_rate=1e-3, clip=1.0)


def examples(count: int) -> list[Example]:
    return [Example(tokens=(index, 1, 2), prompt=1) for index in range(count)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(derandomize=True)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 6))
def test_there_are_as_many_batches_as_steps_and_none_repeats_an_example(
    count: int, steps: int, batch: int
) -> None:
    tuning = replace(TUNING, steps=steps, batch=batch)
    batches = tuning.batches(examples(count), rng())
    assert len(batches) == steps
    for chosen in batches:
        assert len(chosen) == len(set(chosen)) == min(batch, count)


def test_every_epoch_covers_all_examples_once() -> None:
    # 12 examples in batches of 4 are 3 steps per epoch; 6 steps are 2 epochs.
    found = TUNING.batches(examples(12), rng())
    for epoch in (found[:3], found[3:]):
        assert sorted(e.tokens[0] for batch in epoch for e in batch) == list(range(12))
    assert found[:3] != found[3:]  # shuffled anew


def test_what_does_not_fill_a_batch_waits_for_another_epoch() -> None:
    # 5 examples in batches of 4: 1 step per epoch leaves one out, another one each time.
    found = replace(TUNING, steps=40).batches(examples(5), rng())
    counts = Counter(e.tokens[0] for batch in found for e in batch)
    assert set(counts) == set(range(5))
    assert sum(counts.values()) == 40 * 4


def test_fewer_examples_than_a_batch_make_smaller_batches() -> None:
    found = TUNING.batches(examples(3), rng())
    assert [sorted(e.tokens[0] for e in batch) for batch in found] == [[0, 1, 2]] * 6


def test_equal_streams_give_equal_batches_and_others_do_not() -> None:
    assert TUNING.batches(examples(12), rng(1)) == TUNING.batches(examples(12), rng(1))
    assert TUNING.batches(examples(12), rng(1)) != TUNING.batches(examples(12), rng(2))


def test_nothing_to_tune_on_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 exchange in the buffer, got 0"):
        TUNING.batches([], rng())


@pytest.mark.parametrize("name", ["steps", "batch"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"tuning.{name} must be >= 1, got 0"):
        replace(TUNING, **{name: 0})


@pytest.mark.parametrize("name", ["learning_rate", "clip"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_rates_must_be_positive_numbers(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"tuning.{name} must be > 0, got"):
        replace(TUNING, **{name: value})


def test_epochs_make_as_many_steps_as_the_buffer_fills() -> None:
    tuning = replace(TUNING, steps=None, epochs=3)
    assert len(tuning.batches(examples(12), rng())) == 9
    assert len(tuning.batches(examples(13), rng())) == 9  # the 13th waits for another epoch
    assert len(tuning.batches(examples(2), rng())) == 3
    assert tuning.epoch_ends(12) == (3, 6, 9)
    assert tuning.batches(examples(12), rng()) == replace(TUNING, steps=9).batches(
        examples(12), rng()
    )


def test_steps_cut_the_last_epoch_short() -> None:
    assert replace(TUNING, steps=7).epoch_ends(12) == (3, 6, 7)
    assert replace(TUNING, steps=6).epoch_ends(12) == (3, 6)
    assert replace(TUNING, steps=2).epoch_ends(12) == (2,)


def test_who_wrote_more_takes_more_steps_where_passes_are_asked_for() -> None:
    tuning = replace(TUNING, steps=6, least_epochs=3)
    assert len(tuning.batches(examples(8), rng())) == 6  # 3 passes are 6 steps
    assert len(tuning.batches(examples(7), rng())) == 6  # 3 passes are 3 steps
    assert len(tuning.batches(examples(20), rng())) == 15
    assert tuning.epoch_ends(20) == (5, 10, 15)


def test_a_short_tune_is_never_longer_than_any_other() -> None:
    tuning = replace(TUNING, steps=6, steps_again=4, steps_first=9)
    assert (tuning.again().steps, tuning.first().steps) == (4, 6)
    by_epochs = replace(tuning, steps=None, epochs=2)
    assert (by_epochs.again().steps, by_epochs.first().steps) == (4, 9)
    assert by_epochs.again().epochs is None


@settings(derandomize=True)
@given(st.integers(1, 40), st.floats(0, 0.99), st.integers(0, 9))
def test_what_is_held_out_and_what_is_trained_on_are_all_of_it(
    count: int, share: float, seed: int
) -> None:
    kept, held = replace(TUNING, holdout=share).split(range(count), rng(seed))
    assert sorted((*kept, *held)) == list(range(count))
    assert kept
    assert list(kept) == sorted(kept)
    assert bool(held) == (share > 0 and count > 1)
    assert abs(len(held) - share * count) <= 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 2}, "exactly one of tuning.steps and tuning.epochs must be given"),
        ({"steps": None}, "exactly one of tuning.steps and tuning.epochs must be given"),
        ({"steps": None, "epochs": 0}, "tuning.epochs must be >= 1, got 0"),
        ({"holdout": 1.0}, "tuning.holdout must be >= 0 and < 1, got 1.0"),
        ({"holdout": 0.2, "patience": 0}, "tuning.patience must be >= 1, got 0"),
        ({"patience": 2}, "tuning.holdout must be > 0, got 0"),
    ],
)
def test_schedules_that_cannot_be_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(TUNING, **changes)
