"""One linear layer with K devices' low-rank paths, forward and backward by hand.

``y = x W^T + s x A^T B^T`` for rows in K blocks. Written by hand because of the shapes: a product
with 8 columns runs at a quarter of the speed of the same product with 8 rows, and autograd takes
the slow one of every pair; and because the low-rank terms are added in place (docs/LOG.md).
The weight is frozen, so it gets no gradient.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def adapted_linear(linear: nn.Linear, x: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Returns the layer's output with every device's own update.

    Args:
        linear: The frozen layer.
        x: Input, ``(rows, ..., n_in)``, rows device-major.
        a: Factors A, ``(K, rank, n_in)``.
        b: Factors B transposed, ``(K, rank, n_out)``.
        scale: ``alpha / rank`` per device, ``(K, 1, 1)``.
    """
    apply = cast(Any, _Adapted.apply)  # pyright: ignore[reportUnknownMemberType] - torch's own type
    return apply(x, linear.weight, linear.bias, a, b, scale)


class _Adapted(torch.autograd.Function):
    """The layer as one node of the graph; factors take the activations' precision."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd wants every tensor as an argument of its own
        ctx: Any,  # noqa: ANN401 - torch's context takes any attribute
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
    ) -> Tensor:
        out = functional.linear(x, weight, bias)
        devices = a.shape[0]
        a, b, scale = a.to(x.dtype), b.to(x.dtype), scale.to(x.dtype)
        rows = x.reshape(devices, -1, x.shape[-1])
        low = torch.bmm(a, rows.transpose(1, 2)).mul_(scale)
        out.view(devices, -1, out.shape[-1]).baddbmm_(low.transpose(1, 2), b)
        ctx.save_for_backward(rows, weight, a, b, scale, low)
        return out

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - torch types it loosely
        ctx: Any,  # noqa: ANN401 - as above
        gradient: Tensor,
    ) -> tuple[Tensor | None, ...]:
        rows, weight, a, b, scale, low = cast(tuple[Tensor, ...], ctx.saved_tensors)
        into = gradient.reshape(rows.shape[0], -1, gradient.shape[-1])
        into_low = torch.bmm(b, into.transpose(1, 2)).mul_(scale)
        into_x = None
        if ctx.needs_input_grad[0]:
            into_x = gradient @ weight
            into_x.view(rows.shape).baddbmm_(into_low.transpose(1, 2), a)
        into_a, into_b = torch.bmm(into_low, rows), torch.bmm(low, into)
        return into_x, None, None, into_a.float(), into_b.float(), None
