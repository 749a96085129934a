"""Tuning: the schedule of a (re)tune, as the batches of every optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleettune.tokens import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """A step budget and its optimizer: AdamW without weight decay, constant rate.

    Attributes:
        steps: Optimizer steps of one tune.
        batch: Exchanges per step.
        learning_rate: AdamW's learning rate.
        clip: Largest norm of the whole gradient.
        prefix_cache: Whether the device keeps the hidden states below its lowest adapter while it
            tunes (METHODS E2): they count against its quota, writing and reading them costs joules.
        frozen_a: Whether A keeps its first values, the same on all devices, and B alone trains
            (FFA-LoRA): what `strategies.ffa` averages. Charged as a tune of both.
    """

    steps: int
    batch: int
    learning_rate: float
    clip: float
    prefix_cache: bool = False
    frozen_a: bool = False

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("batch", self.batch)):
            if value < 1:
                raise ValueError(f"tuning.{name} must be >= 1, got {value}")
        for name, value in (("learning_rate", self.learning_rate), ("clip", self.clip)):
            if not value > 0:
                raise ValueError(f"tuning.{name} must be > 0, got {value}")

    def batches(
        self, examples: Sequence[Example], rng: np.random.Generator
    ) -> tuple[tuple[Example, ...], ...]:
        """Returns the examples of every step: shuffled epochs, one after the other.

        Fewer examples than a batch make smaller batches, never repeated ones.

        Raises:
            ValueError: If there is no example.
        """
        if not examples:
            raise ValueError("tuning needs at least 1 exchange in the buffer, got 0")
        size = min(self.batch, len(examples))
        per_epoch = len(examples) // size
        found: list[tuple[Example, ...]] = []
        while len(found) < self.steps:
            order = rng.permutation(len(examples))
            for index in range(per_epoch):
                chosen = order[index * size : (index + 1) * size]
                found.append(tuple(examples[int(place)] for place in chosen))
        return tuple(found[: self.steps])
