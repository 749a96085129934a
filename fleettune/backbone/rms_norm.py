"""Root mean square normalisation, forward and backward by hand; the residual stream is fp32."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def normalise(
    x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns the normalised states in a precision, and one over every state's root mean square.

    Args:
        x: States, ``(..., hidden)``, fp32.
        weight: The norm's weight, fp32.
        epsilon: Added to the mean square.
        dtype: Precision of what comes back.
    """
    norm = cast(Any, torch.linalg).vector_norm
    inverse = cast(Tensor, norm(x, dim=-1, keepdim=True))
    inverse.square_().mul_(1 / x.shape[-1]).add_(epsilon).rsqrt_()
    return (x * inverse).mul_(weight).to(dtype), inverse


def normalise_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, inverse: Tensor, into: Tensor
) -> None:
    """Adds the gradient of `x` to `into`, fp32.

    Args:
        gradient: Of the normalised states.
        x: As in `normalise`.
        weight: Likewise.
        inverse: What `normalise` returned.
        into: The gradient that the residual stream brings, ``(..., hidden)``.
    """
    own = gradient * weight
    share = (own * x).sum(-1, keepdim=True).mul_(inverse.pow(3)).mul_(-1 / x.shape[-1])
    into.addcmul_(own, inverse).addcmul_(x, share)
