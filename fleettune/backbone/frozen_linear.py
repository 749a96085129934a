"""Linear layers with frozen weights, forward and backward, laid out once for the matrix library.

In bf16 oneDNN's own layout is faster than the plain one (docs/LOG.md). It adds two copies of a
small weight; large ones keep their own. In fp32 it would gain little and cost memory for every new
shape of a batch, because oneDNN keeps the code that it made for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

PACKED_BYTES = 64 * 2**20
"""Largest weight that is copied into the library's layout, in bytes."""


@dataclass(frozen=True, slots=True)
class FrozenLinear:
    """A linear layer without gradient of its own: ``x -> x W^T``.

    Attributes:
        weight: ``(n_out, n_in)``.
        packed: The weight and its transpose in the library's layout; None if too large.
    """

    weight: Tensor
    packed: tuple[Tensor, Tensor] | None

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Returns ``(..., n_out)``, plus a tensor of this shape if given."""
        if self.packed is not None:
            return _multiply(x, self.packed[0], plus)
        out = x @ self.weight.t()
        return out if plus is None else out.add_(plus)

    def backward(self, gradient: Tensor, plus: Tensor | None = None) -> Tensor:
        """Returns the input's gradient, ``(..., n_in)``, plus a tensor of this shape if given."""
        if self.packed is not None:
            return _multiply(gradient, self.packed[1], plus)
        into = gradient @ self.weight
        return into if plus is None else into.add_(plus)


def freeze_weight(weight: Tensor, *, packs: bool = True) -> FrozenLinear:
    """Returns the linear layer of a weight, copied into the library's layout where that gains.

    Args:
        weight: ``(n_out, n_in)``.
        packs: Whether it may be copied into the library's layout.
    """
    weight = weight.detach()
    small = weight.numel() * weight.element_size() <= PACKED_BYTES
    gains = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
    if not (packs and small and gains and _has_layout()):
        return FrozenLinear(weight, None)
    return FrozenLinear(weight, (_pack(weight), _pack(weight.t().contiguous())))


def _has_layout() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _pack(weight: Tensor) -> Tensor:
    library = cast(Any, torch.ops.mkldnn)
    return library._reorder_linear_weight(weight, None)


def _multiply(x: Tensor, packed: Tensor, plus: Tensor | None = None) -> Tensor:
    library = cast(Any, torch.ops.mkldnn)
    if plus is not None:
        return library._linear_pointwise.binary(x, plus, packed, None, "add")
    return library._linear_pointwise(x, packed, None, "none", [], "")
