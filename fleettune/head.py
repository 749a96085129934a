"""The vocabulary head while tuning: losses and their gradient in one go.

Logits of a large vocabulary are the largest tensors of all. The gradient of a token's loss is known
as soon as the logits are, so it is carried to the hidden states at once and slice by slice, and no
logits are kept for a backward pass. The head is frozen, so it gets no gradient.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_TOKENS_PER_SLICE = 1024


def head_losses(head: nn.Linear, states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Returns each token's weighted cross entropy as fp32, ``(tokens,)``.

    Args:
        head: The frozen vocabulary head.
        states: What the head reads, ``(tokens, hidden)``.
        targets: Token ids, ``(tokens,)``.
        weights: What each token counts, ``(tokens,)``.
    """
    apply = cast(Any, _HeadLosses.apply)  # pyright: ignore[reportUnknownMemberType] - torch's own type
    return apply(states, head.weight, head.bias, targets, weights)


class _HeadLosses(torch.autograd.Function):
    """Head and cross entropy as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context takes any attribute
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
    ) -> Tensor:
        losses = torch.empty(len(targets))
        gradient = torch.empty_like(states)
        for start in range(0, len(targets), _TOKENS_PER_SLICE):
            part = slice(start, start + _TOKENS_PER_SLICE)
            wanted = targets[part, None]
            logits = functional.linear(states[part], weight, bias).float()
            chances = functional.log_softmax(logits, -1)
            losses[part] = -chances.gather(1, wanted)[:, 0] * weights[part]
            # the gradient of the loss to the logits: softmax minus one at the target
            chances.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1.0, dtype=torch.float))
            # weighted before the product, as autograd would: afterwards it rounds otherwise
            chances.mul_(weights[part, None])
            gradient[part] = chances.to(states.dtype) @ weight
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it loosely
        ctx: Any,  # noqa: ANN401 - as above
        gradient: Tensor,
    ) -> tuple[Tensor | None, ...]:
        (states,) = cast(tuple[Tensor, ...], ctx.saved_tensors)
        return states * gradient[:, None].to(states.dtype), None, None, None, None
