"""Low-rank paths of K devices beside frozen matrices, forward and backward by hand.

For device k: ``y_k += s B_k A_k x_k`` with ``s = alpha / rank``; backward ``dB = g (s A x)^T``,
``dA = s (B^T g) x^T`` and ``dx += s A^T B^T g``. Devices' blocks of rows lie one after the other,
so one batched multiplication applies every device's own factors. The rank stands in rows: a product
with 8 columns runs at a quarter of the speed of the same product with 8 rows (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixPath:
    """The path of one matrix.

    Attributes:
        output: Index of the matrix among those that read the input.
        rows: Its rows of `LowRankPath.a`.
        b: B transposed, ``(K, rank, n_out)``, in the activations' precision.
        into_b: Where its gradient goes, fp32.
    """

    output: int
    rows: slice
    b: Tensor
    into_b: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPath:
    """The paths of all adapted matrices that read one input, of K devices.

    Attributes:
        a: The A of all matrices, one below the other, ``(K, ranks, n_in)``, in the activations'
            precision.
        scale: ``alpha / rank`` of every row, ``(K, ranks, 1)``, likewise.
        into_a: Where the gradient of `a` goes, fp32.
        parts: The matrices.
    """

    a: Tensor
    scale: Tensor
    into_a: Tensor
    parts: Sequence[MatrixPath]

    def add(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Adds ``s B A x`` to the outputs in place; returns ``s A x``, ``(K, ranks, rows)``.

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
        """Writes the gradients of A and B; returns ``s B^T g``, ``(K, ranks, rows)``.

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
        """Adds ``A^T`` times what `backward` returned to the input's gradient, in place."""
        self._rows(into_x).baddbmm_(into_low.transpose(1, 2), self.a)

    def _rows(self, x: Tensor) -> Tensor:
        return x.view(len(self.a), -1, x.shape[-1])
