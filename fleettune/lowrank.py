"""Low-rank paths of K devices beside one product, forward and backward by hand.

Devices' blocks of rows lie one after the other, so a batched multiplication applies everybody's own
factors. The rank stands in rows: a product with 8 columns runs at a quarter of the speed of the
same product with 8 rows (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One matrix's share of a joined path.

    Attributes:
        rows: Its rows of the joined A.
        columns: Its columns of the joined output.
        b: B transposed, ``(K, rank, n_out)``, in the activations' precision.
        into_b: Where its gradient goes, fp32.
    """

    rows: slice
    columns: slice
    b: Tensor
    into_b: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """The paths of all adapted matrices that read one input.

    Attributes:
        a: All A, one below the other, ``(K, ranks, n_in)``, in the activations' precision.
        scale: ``alpha / rank`` of every row, ``(K, ranks, 1)``, likewise.
        into_a: Where the gradient of `a` goes, fp32.
        parts: The matrices.
    """

    a: Tensor
    scale: Tensor
    into_a: Tensor
    parts: Sequence[Part]

    def add(self, x: Tensor, out: Tensor) -> Tensor:
        """Adds the paths of `x` to `out`; returns the inner states, ``(K, ranks, rows)``.

        Args:
            x: Input, ``(K, rows, n_in)``.
            out: The joined output, ``(K, rows, n_out)``, changed in place.
        """
        low = torch.bmm(self.a, x.transpose(1, 2)).mul_(self.scale)
        for part in self.parts:
            out[:, :, part.columns].baddbmm_(low[:, part.rows].transpose(1, 2), part.b)
        return low

    def backward(self, x: Tensor, low: Tensor, gradient: Tensor) -> Tensor:
        """Writes the factors' gradients; returns those of the inner states, ``(K, ranks, rows)``.

        Args:
            x: Input, as in `add`.
            low: What `add` returned.
            gradient: Gradient of the joined output, ``(K, rows, n_out)``.
        """
        into_low = torch.empty_like(low)
        for part in self.parts:
            own = gradient[:, :, part.columns]
            torch.bmm(part.b, own.transpose(1, 2), out=into_low[:, part.rows])
            _write(low[:, part.rows], own, part.into_b)
        into_low.mul_(self.scale)
        _write(into_low, x, self.into_a)
        return into_low

    def add_into(self, into_low: Tensor, into_x: Tensor) -> None:
        """Adds the paths' share to the input's gradient, ``(K, rows, n_in)``, in place."""
        into_x.baddbmm_(into_low.transpose(1, 2), self.a)


def _write(left: Tensor, right: Tensor, into: Tensor) -> None:
    if left.dtype == into.dtype:
        torch.bmm(left, right, out=into)
    else:
        into.copy_(torch.bmm(left, right))
