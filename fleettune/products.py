"""Products with frozen weights, forward and backward, laid out once for the matrix library.

Weights that read the same input are joined into one product. oneDNN's own layout is 2 to 10 %
faster than the plain one (docs/LOG.md); it doubles the memory of small weights, and large ones keep
their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
from torch import Tensor

PACKED_BYTES = 64 * 2**20
"""Largest weight that is copied into the library's layout, in bytes."""


@dataclass(frozen=True, slots=True)
class Product:
    """Frozen weights that share an input: ``x -> [x W1^T, x W2^T, ...]``.

    Attributes:
        weights: The weights, each ``(n_out, n_in)``.
        packed: The joined weight and its transpose in the library's layout; None if too large.
    """

    weights: tuple[Tensor, ...]
    packed: tuple[Tensor, Tensor] | None

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Returns ``(..., n_out)``, the weights' outputs side by side, plus a tensor if given."""
        if self.packed is not None:
            return _multiply(x, self.packed[0], plus)
        out = torch.cat([x @ weight.t() for weight in self.weights], -1)
        return out if plus is None else out.add_(plus)

    def backward(self, gradient: Tensor) -> Tensor:
        """Returns the gradient of the input from that of the output, ``(..., n_in)``."""
        if self.packed is not None:
            return _multiply(gradient, self.packed[1])
        ends = accumulate((len(weight) for weight in self.weights), initial=0)
        parts = [
            gradient[..., start:end] @ weight
            for weight, (start, end) in zip(self.weights, pairwise(ends), strict=True)
        ]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def product(weights: Sequence[Tensor], *, packs: bool = True) -> Product:
    """Returns the product with frozen weights that read the same input.

    Args:
        weights: The weights, each ``(n_out, n_in)``.
        packs: Whether they may be copied into the library's layout.
    """
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    if not packs or size > PACKED_BYTES or not _has_layout():
        return Product(tuple(weights), None)
    joined = torch.cat([weight.detach() for weight in weights])
    return Product(tuple(weights), (_pack(joined), _pack(joined.t().contiguous())))


def _has_layout() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _pack(weight: Tensor) -> Tensor:
    library = cast(Any, torch.ops.mkldnn)
    return library._reorder_linear_weight(weight, None)  # noqa: SLF001 - torch has no public name


def _multiply(x: Tensor, packed: Tensor, plus: Tensor | None = None) -> Tensor:
    library = cast(Any, torch.ops.mkldnn)
    if plus is not None:
        return library._linear_pointwise.binary(x, plus, packed, None, "add")  # noqa: SLF001
    return library._linear_pointwise(x, packed, None, "none", [], "")  # noqa: SLF001 - as above
