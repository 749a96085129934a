"""Sampling of tokens with a random stream per row: no text depends on its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def gumbel_draw(
    seeds: Sequence[int | None], temperature: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns what turns the next token's logits into scores whose maximum is a sample.

    The maximum of ``logits / T + g`` with independent standard Gumbel noise ``g`` is distributed as
    ``softmax(logits / T)`` (Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030). Every row draws
    its noise from its own generator, once per token of the vocabulary and step.

    Args:
        seeds: Key of each row's generator, None for a row that is padding.
        temperature: Above 0.
    """
    rows = [None if seed is None else np.random.default_rng(seed) for seed in seeds]

    def drawn(tokens: Tensor, logits: Tensor) -> Tensor:
        """Returns scores, ``(rows, vocabulary)``; the tokens so far do not matter."""
        size = logits.shape[-1]
        noise = np.stack([np.zeros(size) if rng is None else rng.gumbel(size=size) for rng in rows])
        return logits.double() / temperature + torch.as_tensor(noise, device=logits.device)

    return drawn
