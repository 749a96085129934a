"""Tuning: the schedule of a (re)tune as the batches of every step, and what is held out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from fleettune.data.tokens import Example

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Examples that a tune validates on and never trains on; both empty without any.

    Attributes:
        examples: The examples.
        after: After how many steps they are scored: at the end of every epoch, ascending.
    """

    examples: tuple[Example, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """A step budget and its optimizer: AdamW without weight decay, constant rate.

    Attributes:
        steps: Optimizer steps of one tune; None where `epochs` says.
        batch: Exchanges per step.
        learning_rate: AdamW's learning rate.
        clip: Largest norm of the whole gradient.
        prefix_cache: Whether the device keeps the hidden states below its lowest adapter while it
            tunes (docs/methods.md#prefix-cache): they count against its quota, writing and reading
            them costs joules.
        epochs: Passes over what is trained on; None where `steps` says.
        holdout: Share of the answered exchanges that is validated on after every epoch and not
            trained on, from 0 to less than 1; at least one of two or more. The patch with the
            lowest loss there is kept.
        patience: Epochs without a lower loss there after which the tune stops; None: it never does.
        steps_again: Optimizer steps of a retune that goes on from the old patch, never more than
            `steps`; None: as of any other tune.
        steps_first: Optimizer steps of a tune that begins anew where later retunes go on from it,
            for they add what it lacks, never more than `steps`; None: as of any other tune.
        least_epochs: Passes that every tune makes at least, even where its steps are fewer: who
            wrote more needs more steps; None: steps or epochs alone say.
        frozen_a: Whether A keeps its first values, the same on all devices, and B alone trains
            (FFA-LoRA): what `strategies.aggregation.ffa` averages. Billed as a tune of both.

    Raises:
        ValueError: If a value breaks its rule, or steps and epochs are both given or both missing.
    """

    steps: int | None
    batch: int
    learning_rate: float
    clip: float
    prefix_cache: bool = False
    epochs: int | None = None
    holdout: float = 0.0
    patience: int | None = None
    steps_again: int | None = None
    steps_first: int | None = None
    least_epochs: int | None = None
    frozen_a: bool = False

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                "exactly one of tuning.steps and tuning.epochs must be given (the other null), got "
                f"{self.steps} and {self.epochs}"
            )
        counts = (
            "steps",
            "batch",
            "epochs",
            "patience",
            "steps_again",
            "steps_first",
            "least_epochs",
        )
        for name, value in ((name, getattr(self, name)) for name in counts):
            if value is not None and value < 1:
                raise ValueError(f"tuning.{name} must be >= 1, got {value}")
        for name, value in (("learning_rate", self.learning_rate), ("clip", self.clip)):
            if not value > 0:
                raise ValueError(f"tuning.{name} must be > 0, got {value}")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"tuning.holdout must be >= 0 and < 1, got {self.holdout}")
        if self.patience is not None and not self.holdout:
            raise ValueError(
                f"tuning.patience={self.patience} needs exchanges to validate on: "
                "tuning.holdout must be > 0, got 0"
            )

    def again(self) -> Tuning:
        """Returns the tuning of a retune that goes on from the old patch."""
        return self._with_steps(self.steps_again)

    def first(self) -> Tuning:
        """Returns the tuning of a tune that begins anew, from which retunes will go on."""
        return self._with_steps(self.steps_first)

    def _with_steps(self, steps: int | None) -> Tuning:
        if steps is None:
            return self
        fewest = steps if self.steps is None else min(steps, self.steps)
        return replace(self, steps=fewest, epochs=None)

    def split(
        self, items: Sequence[T], rng: np.random.Generator
    ) -> tuple[tuple[T, ...], tuple[T, ...]]:
        """Returns what is trained on and what is held out, each in its order.

        Of a single item nothing is held out.
        """
        held = 0
        if self.holdout and len(items) > 1:
            held = min(len(items) - 1, max(1, round(self.holdout * len(items))))
        order = rng.permutation(len(items)) if held else np.arange(0)
        chosen = {int(place) for place in order[:held]}
        return (
            tuple(item for place, item in enumerate(items) if place not in chosen),
            tuple(item for place, item in enumerate(items) if place in chosen),
        )

    def epoch_ends(self, examples: int) -> tuple[int, ...]:
        """Returns how many steps are done at the end of every epoch over some examples.

        The last epoch is cut short where `steps` ends within it.
        """
        per_epoch, steps = self._per_epoch(examples), self._steps(examples)
        return (*range(per_epoch, steps, per_epoch), steps)

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
        steps = self._steps(len(examples))
        found: list[tuple[Example, ...]] = []
        while len(found) < steps:
            order = rng.permutation(len(examples))
            for index in range(self._per_epoch(len(examples))):
                chosen = order[index * size : (index + 1) * size]
                found.append(tuple(examples[int(place)] for place in chosen))
        return tuple(found[:steps])

    def _per_epoch(self, examples: int) -> int:
        """Returns the steps of an epoch; what does not fill a batch waits for another one."""
        return examples // min(self.batch, examples)

    def _steps(self, examples: int) -> int:
        least = (self.least_epochs or 0) * self._per_epoch(examples)
        if self.steps is not None:
            return max(self.steps, least)
        return max((self.epochs or 1) * self._per_epoch(examples), least)
