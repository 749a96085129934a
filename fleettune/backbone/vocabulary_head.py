"""The vocabulary head while tuning: losses and their gradient in one pass.

Logits of a large vocabulary are the largest tensors of all. The gradient of a token's loss is known
as soon as its logits are, so it is carried to the hidden states at once. Tokens and vocabulary come
in blocks that stay in the processor's cache, and softmax is divided by its sum only after the
product. The head is frozen, so it gets no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fleettune.backbone.frozen_linear import PACKED_BYTES, FrozenLinear, freeze_weight

TOKENS = 192
"""Tokens in a block, if the vocabulary needs more than one."""
VOCABULARY = 8192
"""Logits of one token in a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The frozen head.

    Attributes:
        weight: ``(vocabulary, hidden)``.
        bias: ``(vocabulary,)`` or None.
        blocks: The weight in blocks of `VOCABULARY` rows.
    """

    weight: Tensor
    bias: Tensor | None
    blocks: tuple[FrozenLinear, ...]


def open_head(linear: nn.Linear) -> Head:
    """Returns the head of a backbone's last linear layer."""
    weight = linear.weight.detach()
    packs = weight.numel() * weight.element_size() <= PACKED_BYTES
    blocks = [freeze_weight(block, packs=packs) for block in _cut(weight, VOCABULARY)]
    return Head(weight=weight, bias=linear.bias, blocks=tuple(blocks))


def losses_and_gradient(
    head: Head, states: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns each token's weighted cross entropy as fp32 and the gradient of their sum, fp32.

    Args:
        head: The frozen head.
        states: What the head reads, ``(tokens, hidden)``.
        targets: Token ids, ``(tokens,)``.
        weights: What each token counts, ``(tokens,)``.
    """
    size = len(targets) if len(head.blocks) == 1 else TOKENS
    parts = zip(_cut(states, size), _cut(targets, size), _cut(weights, size), strict=True)
    found = [_block(head, part, wanted[:, None], w[:, None]) for part, wanted, w in parts]
    if len(found) == 1:
        return found[0]
    return torch.cat([loss for loss, _ in found]), torch.cat([back for _, back in found])


def _cut(x: Tensor, size: int) -> list[Tensor]:
    return [x[start : start + size] for start in range(0, len(x), size)]


def _block(head: Head, states: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    logits = _logits(head, states)
    tops = [part.amax(1, keepdim=True) for part in logits]
    top = (tops[0] if len(tops) == 1 else torch.cat(tops, 1).amax(1, keepdim=True)).float()
    total, wanted = torch.zeros_like(top), torch.zeros_like(top)
    gradient: Tensor | None = None
    for index, (block, part) in enumerate(zip(head.blocks, logits, strict=True)):
        chances = (part if part.dtype == top.dtype else part.float()).sub_(top)
        inside, place = _places(targets, index * VOCABULARY, part.shape[1])
        wanted = torch.where(inside, chances.gather(1, place), wanted)
        chances.exp_()
        total += chances.sum(1, keepdim=True)
        # the target's own share follows below in fp32: one minus nearly one keeps no bf16 digits
        chances.scatter_(1, place, chances.gather(1, place).masked_fill_(inside, 0.0))
        back = block.backward(chances.to(states.dtype))
        gradient = back.float() if gradient is None else gradient.add_(back)
    gradient = torch.zeros_like(states) if gradient is None else gradient
    gradient.mul_(weights / total)
    own = (wanted.exp() / total - 1) * weights
    gradient.addcmul_(head.weight[targets[:, 0]].float(), own)
    return ((total.log() - wanted) * weights)[:, 0], gradient


def _logits(head: Head, states: Tensor) -> list[Tensor]:
    logits = [block.forward(states) for block in head.blocks]
    if head.bias is not None:
        for part, bias in zip(logits, _cut(head.bias, VOCABULARY), strict=True):
            part.add_(bias)
    return logits


def _places(targets: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns which targets a block holds, and their columns there (any column elsewhere)."""
    place = targets - start
    return (place >= 0) & (place < width), place.clamp(0, width - 1)


def head_losses(head: Head, states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Returns each token's weighted cross entropy as fp32, as a node of autograd's graph.

    Arguments are those of `losses_and_gradient`.
    """
    apply = cast(Any, _HeadLosses.apply)  # pyright: ignore[reportUnknownMemberType] - torch's own type
    return apply(states, head, targets, weights)


class _HeadLosses(torch.autograd.Function):
    """Head and cross entropy as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context takes any attribute
        states: Tensor,
        head: Head,
        targets: Tensor,
        weights: Tensor,
    ) -> Tensor:
        losses, gradient = losses_and_gradient(head, states, targets, weights)
        ctx.save_for_backward(gradient.to(states.dtype))
        return losses

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it loosely
        ctx: Any,  # noqa: ANN401 - as above
        gradient: Tensor,
    ) -> tuple[Tensor | None, ...]:
        (states,) = cast(tuple[Tensor, ...], ctx.saved_tensors)
        return states * gradient[:, None].to(states.dtype), None, None, None
