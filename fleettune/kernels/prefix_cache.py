"""The host's prefix cache: hidden states below the lowest adapted layer, once per example.

Below that layer nothing changes during tuning (docs/methods.md#prefix-cache). This is the host's
saving and free of
charge: a device without a cache of its own is charged for every pass. What exceeds a bound in
bytes lies in a temporary file, with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from fleettune.backbone.causal_lm import Backbone
from fleettune.kernels.training_pass import lower_layers

MEMORY_BYTES = 256 * 2**20
"""Largest prefix that a process keeps in memory."""
_TOKENS = 1024


@contextmanager
def cached_prefix(
    backbone: Backbone, tokens: Tensor, lengths: Tensor, cut: int, memory_bytes: int = MEMORY_BYTES
) -> Generator[Tensor]:
    """Yields the input of layer `cut` of every example, ``(examples, positions, hidden)``.

    Args:
        backbone: The model.
        tokens: Examples, ``(examples, positions)``, padded on the right.
        lengths: How many positions of each are of use; the others hold anything finite.
        cut: The first layer that is not computed.
        memory_bytes: Beyond this size the states lie in a file while the block runs.
    """
    longest = int(lengths.max())
    shape = (len(tokens), longest, backbone.shapes.hidden)
    dtype = backbone.dtype
    with TemporaryDirectory(prefix="fleettune-prefix-", ignore_cleanup_errors=True) as folder:
        if math.prod(shape) * dtype.itemsize <= memory_bytes:
            states = torch.zeros(shape, dtype=dtype)
        else:
            # a new file reads as zeros
            file, size = str(Path(folder) / "states"), math.prod(shape)
            states = torch.from_file(file, shared=True, size=size, dtype=dtype, device="cpu")
            states = states.view(shape)
        _fill(backbone, tokens, lengths, cut, states)
        yield states


@torch.no_grad()
def _fill(backbone: Backbone, tokens: Tensor, lengths: Tensor, cut: int, states: Tensor) -> None:
    """Computes examples of like length together."""
    order = torch.argsort(lengths, stable=True)
    rows = max(1, _TOKENS // int(lengths.max()))
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        longest = int(lengths[chosen].max())
        found = lower_layers(backbone, backbone.embed(tokens[chosen, :longest]), cut)
        states[chosen.to(states.device), :longest] = found.to(states.device, states.dtype)
