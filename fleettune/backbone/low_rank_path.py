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
class MatrixPath:
    """One matrix's share of the paths.

    Attributes:
        output: Which of the matrices that read the input it is.
        rows: Its rows of the joined A.
        b: B transposed, ``(K, rank, n_out)``, in the activations' precision.
        into_b: Where its gradient goes, fp32.
    """

    output: int
    rows: slice
    b: Tensor
    into_b: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPath:
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
    parts: Sequence[MatrixPath]

    def add(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Adds the paths of `x` in place; returns the inner states, ``(K, ranks, rows)``.

        Args:
            x: Input, ``(..., n_in)``, device-major.
            outputs: The matrices' outputs, each ``(..., n_out)``, contiguous.
        """
        low = torch.bmm(self.a, self._rows(x).transpose(1, 2)).mul_(self.scale)
        for part in self.parts:
            out = self._rows(outputs[part.output])
            out.baddbmm_(low[:, part.rows].transpose(1, 2), part.b)
        return low

    def backward(self, x: Tensor, low: Tensor, gradients: Sequence[Tensor]) -> Tensor:
        """Writes the factors' gradients; returns those of the inner states, ``(K, ranks, rows)``.

        Args:
            x: Input, as in `add`.
            low: What `add` returned.
            gradients: Of the outputs.
        """
        found: list[Tensor] = []
        for part in self.parts:
            own = self._rows(gradients[part.output])
            found.append(torch.bmm(part.b, own.transpose(1, 2)))
            # batched products write fast only to tensors without gaps
            part.into_b.copy_(torch.bmm(low[:, part.rows], own))
        into_low = found[0] if len(found) == 1 else torch.cat(found, 1)
        into_low.mul_(self.scale)
        self.into_a.copy_(torch.bmm(into_low, self._rows(x)))
        return into_low

    def add_into(self, into_low: Tensor, into_x: Tensor) -> None:
        """Adds the paths' share to the input's gradient, in place."""
        self._rows(into_x).baddbmm_(into_low.transpose(1, 2), self.a)

    def _rows(self, x: Tensor) -> Tensor:
        return x.view(len(self.a), -1, x.shape[-1])
