"""Ragged examples as rectangular batches: packing, supervised positions, per-row losses.

Padding stands on the right and is the host's work only; no device is billed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fleettune.backbone.causal_lm import Backbone
from fleettune.data.tokens import Example

_HEAD_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """Where a batch is supervised, flattened over its rows.

    Attributes:
        rows: Row of every supervised token, ``(supervised,)``.
        positions: Position whose logits predict it.
        targets: The token itself.
    """

    rows: Tensor
    positions: Tensor
    targets: Tensor


def pad_tokens(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Returns the sequences as one tensor ``(rows, longest)``, zero-padded on the right."""
    padded = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return padded


def supervise(examples: Sequence[Example | None]) -> Supervision:
    """Returns the supervised positions of a batch; a row that is None has none."""
    rows: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    for row, example in enumerate(examples):
        if example is not None:
            rows += [row] * example.supervised
            positions += range(example.prompt - 1, len(example.tokens) - 1)
            targets += example.tokens[example.prompt :]
    return Supervision(
        rows=torch.tensor(rows, dtype=torch.long),
        positions=torch.tensor(positions, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
    )


def token_losses(backbone: Backbone, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the loss of predicting each target, and whether it is the model's first choice.

    Args:
        backbone: The model.
        hidden: States that predict, ``(tokens, hidden)``.
        targets: Token ids, ``(tokens,)``.
    """
    losses: list[Tensor] = []
    first: list[Tensor] = []
    # logits of a large vocabulary are the largest tensors of all, so they come in slices
    for start in range(0, max(len(targets), 1), _HEAD_TOKENS):
        wanted = targets[start : start + _HEAD_TOKENS]
        logits = backbone.logits(hidden[start : start + _HEAD_TOKENS])
        losses.append(functional.cross_entropy(logits, wanted, reduction="none"))
        first.append(logits.detach().argmax(-1) == wanted)
    return torch.cat(losses), torch.cat(first)
