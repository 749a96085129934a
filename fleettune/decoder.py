"""One Llama layer with K devices' adapters, forward and backward by hand.

Only what training of adapters needs is kept and computed: frozen weights get no gradient, and below
the lowest adapted matrix there is no backward pass. The residual stream is fp32, products run in
the backbone's precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fleettune.attention import Attended, Frame, attend, attend_backward
from fleettune.lowrank import LowRank
from fleettune.norms import normalise, normalise_backward
from fleettune.products import Product


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A layer's frozen weights.

    Attributes:
        norms: Weights of the norms before attention and before the feed-forward part, fp32.
        epsilon: The norms' epsilon.
        reads: Products of the first norm: q, k and v, or q alone and k with v.
        o: Behind attention.
        gate_up: The feed-forward part's first product.
        down: Its second.
    """

    norms: tuple[Tensor, Tensor]
    epsilon: float
    reads: tuple[Product, ...]
    o: Product
    gate_up: Product
    down: Product


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """A layer's low-rank paths; None where no device has one."""

    reads: tuple[LowRank | None, ...]
    o: LowRank | None
    gate_up: LowRank | None
    down: LowRank | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Where the top layer goes on behind its attention: the supervised positions.

    Attributes:
        first: The first position that has a query.
        take: Which of ``rows * queries`` states are taken, ``(chosen,)``.
        put: Where their gradients go; ``rows * queries`` where a state is only padding.
    """

    first: int
    take: Tensor
    put: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a layer's backward pass needs."""

    x: Tensor
    inverse: Tensor
    reads: tuple[Tensor, ...]
    reads_low: tuple[Tensor | None, ...]
    attended: Attended
    o_in: Tensor
    o_low: Tensor | None
    middle: Tensor
    middle_inverse: Tensor
    gate_in: Tensor
    gate_low: Tensor | None
    gate_up: Tensor
    opened: Tensor
    down_in: Tensor
    down_low: Tensor | None


def layer_forward(
    weights: Weights, adapters: Adapters, frame: Frame, x: Tensor, choice: Choice | None
) -> tuple[Tensor, Kept]:
    """Returns the layer's output and what is kept.

    Args:
        weights: Frozen weights, q apart from k and v exactly if there is a choice.
        adapters: Low-rank paths, likewise.
        frame: Attention's frame.
        x: Input, ``(rows, positions, hidden)``, fp32, rows device-major.
        choice: Only these states come out, ``(chosen, hidden)``; all of them if None.
    """
    dtype = frame.mask.dtype
    normed, inverse = normalise(x, weights.norms[0], weights.epsilon, dtype)
    inputs = (normed,) if choice is None else (normed[:, choice.first :].contiguous(), normed)
    read = [
        _forward(product, path, one)
        for product, path, one in zip(weights.reads, adapters.reads, inputs, strict=True)
    ]
    out, attended = attend(frame, *_split(frame, [one for one, _ in read]))
    residual = x
    if choice is not None:
        out = out.flatten(0, 1)[choice.take]
        residual = x[:, choice.first :].flatten(0, 1)[choice.take]
    middle, o_low = _forward(weights.o, adapters.o, out, residual)
    gate_in, middle_inverse = normalise(middle, weights.norms[1], weights.epsilon, dtype)
    gate_up, gate_low = _forward(weights.gate_up, adapters.gate_up, gate_in)
    gate, up = gate_up.chunk(2, -1)
    opened = functional.silu(gate)
    down_in = opened * up
    result, down_low = _forward(weights.down, adapters.down, down_in, middle)
    return result, Kept(
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
        gate_up=gate_up,
        opened=opened,
        down_in=down_in,
        down_low=down_low,
    )


def layer_backward(  # noqa: PLR0913, PLR0917 - a layer, what it kept, and where it stands
    weights: Weights,
    adapters: Adapters,
    frame: Frame,
    kept: Kept,
    gradient: Tensor,
    choice: Choice | None,
    *,
    lowest: bool,
) -> Tensor | None:
    """Writes the adapters' gradients; returns that of the input, None for the lowest layer.

    Args:
        weights: As in `layer_forward`, like the next two and `choice`.
        adapters: Low-rank paths.
        frame: Attention's frame.
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
    into = _backward(weights.o, adapters.o, kept.o_in, kept.o_low, own, onward=to_reads)
    if into is None:
        return None
    if choice is not None:
        into, gradient = _spread(choice, into, gradient, kept)
    reads = _attention_backward(weights, frame, kept, into)
    back = [
        _backward(product, path, x, low, one, onward=not lowest)
        for product, path, x, low, one in zip(
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
    weights: Weights, adapters: Adapters, kept: Kept, gradient: Tensor, *, to_middle: bool
) -> None:
    """Writes the feed-forward part's gradients; adds its input's to `gradient`."""
    own = gradient.to(kept.down_in.dtype)
    onward = to_middle or adapters.gate_up is not None
    into = _backward(
        weights.down, adapters.down, kept.down_in, kept.down_low, own, onward=onward
    )
    if into is None:
        return
    gate, up = kept.gate_up.chunk(2, -1)
    both = torch.empty_like(kept.gate_up)
    into_gate, into_up = both.chunk(2, -1)
    torch.mul(into, kept.opened, out=into_up)
    torch.ops.aten.silu_backward.grad_input(into.mul_(up), gate, grad_input=into_gate)
    back = _backward(
        weights.gate_up, adapters.gate_up, kept.gate_in, kept.gate_low, both, onward=to_middle
    )
    if back is not None:
        normalise_backward(
            back, kept.middle, weights.norms[1], kept.middle_inverse, gradient
        )


def _attention_backward(
    weights: Weights, frame: Frame, kept: Kept, gradient: Tensor
) -> list[Tensor]:
    """Returns the gradients of what the products of the first norm gave."""
    found = [
        torch.empty(*x.shape[:-1], sum(len(weight) for weight in product.weights), dtype=x.dtype)
        for x, product in zip(kept.reads, weights.reads, strict=True)
    ]
    attend_backward(frame, kept.attended, gradient, _split(frame, found))
    return found


def _split(frame: Frame, read: Sequence[Tensor]) -> list[Tensor]:
    """Returns q, k and v as views of the products' outputs."""
    width = frame.kv_heads * frame.head_dim
    q, (k, v) = read[0], read[-1][..., -2 * width :].chunk(2, -1)
    return [q[..., : -2 * width] if len(read) == 1 else q, k, v]


def _spread(
    choice: Choice, into: Tensor, gradient: Tensor, kept: Kept
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
    product: Product, path: LowRank | None, x: Tensor, residual: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    fused = residual is not None and residual.dtype == x.dtype
    out = product.forward(x, residual if fused else None)
    low = None
    if path is not None:
        devices = len(path.a)
        low = path.add(
            x.view(devices, -1, x.shape[-1]), out.view(devices, -1, out.shape[-1])
        )
    return (out if residual is None or fused else residual + out), low


def _backward(  # noqa: PLR0913 - a product, its path and their inputs
    product: Product,
    path: LowRank | None,
    x: Tensor,
    low: Tensor | None,
    gradient: Tensor,
    *,
    onward: bool,
) -> Tensor | None:
    """Writes the path's gradients; returns the input's, if asked to go onward."""
    into_low = None
    if path is not None and low is not None:
        devices = len(path.a)
        into_low = path.backward(
            x.view(devices, -1, x.shape[-1]), low, gradient.view(devices, -1, gradient.shape[-1])
        )
    if not onward:
        return None
    into = product.backward(gradient)
    if path is not None and into_low is not None:
        path.add_into(into_low, into.view(len(path.a), -1, into.shape[-1]))
    return into
