"""One Llama layer with K devices' adapters, forward and backward by hand.

Only what training of adapters needs is kept and computed: frozen weights get no gradient, and below
the lowest adapted matrix there is no backward pass. The residual stream is fp32, products run in
the backbone's precision. Norms are root mean square norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from fleettune.backbone.attention import AttentionTables, SavedAttention, attend, attend_backward
from fleettune.backbone.frozen_linear import FrozenLinear
from fleettune.backbone.low_rank_path import LowRankPath


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A layer's frozen weights.

    Attributes:
        norms: Weights of the norms before attention and before the feed-forward part, fp32.
        epsilon: The norms' epsilon.
        reads: q, k and v, grouped by the input that they read: in the top layer q is apart.
        o: The matrix behind attention.
        gate_up: The first two matrices of the feed-forward part.
        down: Its last matrix.
    """

    norms: tuple[Tensor, Tensor]
    epsilon: float
    reads: tuple[tuple[FrozenLinear, ...], ...]
    o: tuple[FrozenLinear]
    gate_up: tuple[FrozenLinear, FrozenLinear]
    down: tuple[FrozenLinear]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """A layer's low-rank paths; None where no device has one."""

    reads: tuple[LowRankPath | None, ...]
    o: LowRankPath | None
    gate_up: LowRankPath | None
    down: LowRankPath | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopPositions:
    """The supervised positions, which are all that the top layer computes behind its attention.

    Attributes:
        first: The first position that has a query.
        take: Indices into ``rows * queries`` states, ``(chosen,)``.
        put: Indices that their gradients go to; ``rows * queries`` where a state is only padding.
    """

    first: int
    take: Tensor
    put: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedLayer:
    """Tensors of a layer's forward pass that its backward pass reads."""

    x: Tensor
    inverse: Tensor
    reads: tuple[Tensor, ...]
    reads_low: tuple[Tensor | None, ...]
    attended: SavedAttention
    o_in: Tensor
    o_low: Tensor | None
    middle: Tensor
    middle_inverse: Tensor
    gate_in: Tensor
    gate_low: Tensor | None
    gate_up: tuple[Tensor, Tensor]
    opened: Tensor
    down_in: Tensor
    down_low: Tensor | None


def layer_forward(
    weights: Weights,
    adapters: Adapters,
    tables: AttentionTables,
    x: Tensor,
    choice: TopPositions | None,
) -> tuple[Tensor, SavedLayer]:
    """Returns the layer's output, and what its backward pass needs.

    Args:
        weights: Frozen weights, q apart from k and v exactly if there is a choice.
        adapters: Low-rank paths, likewise.
        tables: Rotation and mask of this length.
        x: Input, ``(rows, positions, hidden)``, fp32, rows device-major.
        choice: Only these states come out, ``(chosen, hidden)``; all of them if None.
    """
    dtype = tables.mask.dtype
    normed, inverse = normalise(x, weights.norms[0], weights.epsilon, dtype)
    inputs = (normed,) if choice is None else (normed[:, choice.first :].contiguous(), normed)
    read = [
        _forward(products, path, one)
        for products, path, one in zip(weights.reads, adapters.reads, inputs, strict=True)
    ]
    q, k, v = (one for found, _ in read for one in found)
    out, attended = attend(tables, q, k, v)
    residual = x
    if choice is not None:
        out = out.flatten(0, 1)[choice.take]
        residual = x[:, choice.first :].flatten(0, 1)[choice.take]
    (middle,), o_low = _forward(weights.o, adapters.o, out, residual)
    gate_in, middle_inverse = normalise(middle, weights.norms[1], weights.epsilon, dtype)
    (gate, up), gate_low = _forward(weights.gate_up, adapters.gate_up, gate_in)
    opened = functional.silu(gate)
    down_in = opened * up
    (result,), down_low = _forward(weights.down, adapters.down, down_in, middle)
    return result, SavedLayer(
        x=x,
        inverse=inverse,
        reads=inputs,
        reads_low=tuple(low for _, low in read),
        attended=attended,
        o_in=out,
        o_low=o_low,
        middle=middle,
        middle_inverse=middle_inverse,
        gate_in=gate_in,
        gate_low=gate_low,
        gate_up=(gate, up),
        opened=opened,
        down_in=down_in,
        down_low=down_low,
    )


def layer_backward(  # noqa: PLR0913 - a layer, what it kept, and where it stands
    weights: Weights,
    adapters: Adapters,
    tables: AttentionTables,
    kept: SavedLayer,
    gradient: Tensor,
    choice: TopPositions | None,
    *,
    lowest: bool,
) -> Tensor | None:
    """Writes the adapters' gradients; returns that of the input, None for the lowest layer.

    Args:
        weights: As in `layer_forward`, like the next two and `choice`.
        adapters: Low-rank paths.
        tables: Rotation and mask of this length.
        kept: What `layer_forward` kept.
        gradient: Of the layer's output, fp32; changed in place.
        choice: The states that came out.
        lowest: Whether nothing below is trained.
    """
    to_reads = not lowest or any(path is not None for path in adapters.reads)
    to_middle = to_reads or adapters.o is not None
    _feed_forward_backward(weights, adapters, kept, gradient, to_middle=to_middle)
    if not to_middle:
        return None
    own = gradient.to(kept.o_in.dtype)
    into = _backward(weights.o, adapters.o, kept.o_in, kept.o_low, [own], onward=to_reads)
    if into is None:
        return None
    if choice is not None:
        into, gradient = _spread(choice, into, gradient, kept)
    found = attend_backward(tables, kept.attended, into)
    reads = (found[:1], found[1:]) if choice is not None else (found,)
    back = [
        _backward(products, path, x, low, own, onward=not lowest)
        for products, path, x, low, own in zip(
            weights.reads, adapters.reads, kept.reads, kept.reads_low, reads, strict=True
        )
    ]
    normed = back[-1]
    if normed is None:
        return None
    if choice is not None and back[0] is not None:
        normed[:, choice.first :] += back[0]
    normalise_backward(normed, kept.x, weights.norms[0], kept.inverse, gradient)
    return gradient


def _feed_forward_backward(
    weights: Weights, adapters: Adapters, kept: SavedLayer, gradient: Tensor, *, to_middle: bool
) -> None:
    """Writes the feed-forward part's gradients; adds its input's to `gradient`."""
    own = gradient.to(kept.down_in.dtype)
    onward = to_middle or adapters.gate_up is not None
    into = _backward(weights.down, adapters.down, kept.down_in, kept.down_low, [own], onward=onward)
    if into is None:
        return
    gate, up = kept.gate_up
    into_up = into * kept.opened
    both = [torch.ops.aten.silu_backward(into.mul_(up), gate), into_up]
    back = _backward(
        weights.gate_up, adapters.gate_up, kept.gate_in, kept.gate_low, both, onward=to_middle
    )
    if back is not None:
        normalise_backward(back, kept.middle, weights.norms[1], kept.middle_inverse, gradient)


def _spread(
    choice: TopPositions, into: Tensor, gradient: Tensor, kept: SavedLayer
) -> tuple[Tensor, Tensor]:
    """Returns gradients of the chosen states at their places: of attention and of the input."""
    rows, positions, hidden = kept.x.shape
    queries = positions - choice.first
    # one place more than there are, for padding
    attended = into.new_zeros(rows * queries + 1, into.shape[-1])
    attended[choice.put] = into
    residual = gradient.new_zeros(rows * queries + 1, hidden)
    residual[choice.put] = gradient
    whole = gradient.new_zeros(kept.x.shape)
    whole[:, choice.first :] = residual[:-1].view(rows, queries, hidden)
    return attended[:-1].view(rows, queries, -1), whole


def _forward(
    products: Sequence[FrozenLinear],
    path: LowRankPath | None,
    x: Tensor,
    residual: Tensor | None = None,
) -> tuple[list[Tensor], Tensor | None]:
    fused = residual is not None and residual.dtype == x.dtype
    outputs = [one.forward(x, residual if fused else None) for one in products]
    low = None if path is None else path.add(x, outputs)
    if residual is not None and not fused:
        outputs = [residual + out for out in outputs]
    return outputs, low


def _backward(
    products: Sequence[FrozenLinear],
    path: LowRankPath | None,
    x: Tensor,
    low: Tensor | None,
    gradients: Sequence[Tensor],
    *,
    onward: bool,
) -> Tensor | None:
    """Writes the path's gradients; returns the input's, if asked to go onward."""
    into_low = None
    if path is not None and low is not None:
        into_low = path.backward(x, low, gradients)
    if not onward:
        return None
    into = products[0].backward(gradients[0])
    for one, gradient in zip(products[1:], gradients[1:], strict=True):
        into = one.backward(gradient, into)
    if path is not None and into_low is not None:
        path.add_into(into_low, into)
    return into
