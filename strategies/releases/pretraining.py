"""Pretraining of a backbone on a token stream: the vendor's work, with every number keyed.

Plain next-token training (AdamW, warm-up and cosine decay, clipping at norm 1), the same loop for
the pocket model's recipe and for every later release.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fleettune.seeds import Purpose, stream

FLOOR = 0.02
"""Share of the learning rate that is left at the end of the cosine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainPlan:
    """One stretch of pretraining.

    Attributes:
        steps: Optimizer steps.
        learning_rate: Peak learning rate.
        batch: Windows per step.
        window: Tokens per window.
        warmup: Steps of linear warm-up.
        weight_decay: Decoupled weight decay.
    """

    steps: int
    learning_rate: float
    batch: int = 32
    window: int = 64
    warmup: int = 10
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"pretraining {name} must be >= 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"pretraining learning_rate must be > 0, got {self.learning_rate}")

    @property
    def tokens(self) -> int:
        """Tokens that the whole stretch trains on."""
        return self.steps * self.batch * self.window

    def rate(self, step: int) -> float:
        """Returns the learning rate of one step, counted from 0."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps)) + FLOOR
        return self.learning_rate * warm * decay


def pretrain(
    model: Any,  # noqa: ANN401 - a transformers model; its own types are too loose to name
    parameters: Iterable[Tensor],
    text: Tensor,
    plan: PretrainPlan,
    seed: int,
    on_step: Callable[[int, float], bool] = lambda _step, _loss: True,
) -> None:
    """Trains `parameters` of a causal language model in place on random windows of a stream.

    Args:
        model: The causal language model.
        parameters: What to train, each with ``requires_grad``.
        text: Token ids, ``(tokens,)``.
        plan: Steps, rates and shapes.
        seed: Key of the windows' stream.
        on_step: Called with each step's number and loss; False stops early.

    Raises:
        ValueError: If the stream is shorter than one window.
    """
    if len(text) <= plan.window:
        raise ValueError(
            f"the training text must be longer than a window of {plan.window} tokens, "
            f"got {len(text)} tokens; give more conversations"
        )
    chosen = list(parameters)
    optimizer = torch.optim.AdamW(
        chosen, lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=plan.weight_decay, fused=True
    )
    rng = stream(seed, Purpose.RELEASE, 2)
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        starts = rng.integers(0, len(text) - plan.window, size=plan.batch)
        windows = torch.stack([text[start : start + plan.window] for start in starts])
        loss = model(input_ids=windows, labels=windows, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()  # pyright: ignore[reportUnknownMemberType] - torch's own type
        optimizer.zero_grad()
        if not on_step(step, float(loss.detach())):
            return
