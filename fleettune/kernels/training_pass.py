"""One training pass of K devices: losses and gradients of all factors.

Llama's layers run by hand (`fleettune.backbone.decoder_layer`); layers of another build go through
autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional

from fleettune.backbone.attention import Frame, frame
from fleettune.backbone.causal_lm import Backbone
from fleettune.backbone.decoder_layer import Adapters, Choice, Kept, layer_backward, layer_forward
from fleettune.backbone.low_rank_path import LowRank, Part
from fleettune.backbone.rms_norm import normalise, normalise_backward
from fleettune.backbone.vocabulary_head import head_losses, losses_and_gradient
from fleettune.kernels.adapter_stack import Stack, apply_adapters, site_groups
from fleettune.kernels.stacked_adamw import gathered_gradient
from fleettune.kernels.step_rows import Places
from fleettune.shapes import Site

Pass = Callable[[Tensor, Places], tuple[Tensor, Tensor]]
"""From the lowest layer's input and a step's places to every device's loss ``(K,)`` and the
gradient of their sum, laid out as the stack."""


def training_pass(backbone: Backbone, stack: Stack, cut: int) -> Pass:
    """Returns the pass over layers from `cut` on, with the factors as they are when called."""
    if backbone.is_plain_llama:
        return _by_hand(backbone, stack, cut)
    for leaf in stack.leaves():
        leaf.requires_grad_()
    return partial(_by_autograd, backbone, stack, cut)


def lower_layers(backbone: Backbone, hidden: Tensor, cut: int) -> Tensor:
    """Returns the input of layer `cut` from embeddings, ``(rows, positions, hidden)``."""
    if not backbone.is_plain_llama:
        return backbone.layers(hidden, 0, cut)
    none = Adapters(reads=(None,), o=None, gate_up=None, down=None)
    bound = _frame(backbone, hidden.shape[1], 0)
    x = hidden.float()
    for layer in range(cut):
        x, _ = layer_forward(backbone.plain_weights(layer), none, bound, x, None)
    return x


def _by_autograd(
    backbone: Backbone, stack: Stack, cut: int, hidden: Tensor, places: Places
) -> tuple[Tensor, Tensor]:
    with apply_adapters(backbone, stack):
        top = backbone.layers(hidden, cut, backbone.shapes.layers)
        states = backbone.model.model.norm(top[places.rows, places.columns])
        losses = _head_losses(backbone, states, places)
        losses.sum().backward()  # pyright: ignore[reportUnknownMemberType] - torch's own type
    return losses.detach().view(len(stack.flat), -1).sum(1), gathered_gradient(stack)


def _head_losses(backbone: Backbone, states: Tensor, places: Places) -> Tensor:
    """Returns every token's weighted loss, as a node of autograd's graph."""
    family = backbone.family
    if family.softcap is None:
        scaled = states if family.logit_scale == 1 else states * family.logit_scale
        return head_losses(backbone.open_head, scaled, places.targets, places.weights)
    logits = backbone.finish_logits(backbone.head(states).float())
    return functional.cross_entropy(logits, places.targets, reduction="none") * places.weights


def _by_hand(backbone: Backbone, stack: Stack, cut: int) -> Pass:
    dtype, layers = backbone.dtype, backbone.shapes.layers
    gradient = torch.zeros_like(stack.flat)
    # in fp32 the very factors, in bf16 a copy that every pass renews
    factors = stack.flat.to(dtype)
    weights = {layer: backbone.layer_weights(layer) for layer in range(cut, layers)}
    adapters = _adapters(stack, factors, gradient, backbone, range(cut, layers))
    trained = [site.layer for site in stack.factors]
    lowest = min(trained)
    framed = cache(partial(_frame, backbone))

    @torch.no_grad()
    def run(hidden: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        if factors.dtype != stack.flat.dtype:
            factors.copy_(stack.flat)
        x, positions = hidden.float(), hidden.shape[1]
        choice = _choice(places, len(hidden), positions)
        kept: dict[int, tuple[Kept, Frame, Choice | None]] = {}
        for layer in range(cut, layers):
            chosen = choice if layer == layers - 1 else None
            bound = framed(positions, places.first if chosen else 0)
            x, own = layer_forward(weights[layer], adapters[layer], bound, x, chosen)
            kept[layer] = own, bound, chosen
        losses, back = _top(backbone, x, places)
        for layer in reversed(range(lowest, layers)):
            own, bound, chosen = kept.pop(layer)
            found = layer_backward(
                weights[layer], adapters[layer], bound, own, back, chosen, lowest=layer == lowest
            )
            back = back if found is None else found
        return losses.view(len(stack.flat), -1).sum(1), gradient

    return run


def _top(backbone: Backbone, x: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """Returns every token's loss and the gradient of the last layer's output."""
    norm = backbone.model.model.norm
    weight, epsilon = norm.weight.float(), norm.variance_epsilon
    states, inverse = normalise(x, weight, epsilon, backbone.dtype)
    losses, own = losses_and_gradient(backbone.open_head, states, places.targets, places.weights)
    back = torch.zeros_like(x)
    normalise_backward(own, x, weight, inverse, back)
    return losses, back


def _frame(backbone: Backbone, positions: int, first: int) -> Frame:
    shapes = backbone.shapes
    cosine, sine = backbone.rotary(positions)
    heads = (shapes.heads, shapes.kv_heads, shapes.head_dim)
    return frame(cosine, sine, heads, first, backbone.dtype)


def _choice(places: Places, rows: int, positions: int) -> Choice:
    queries = positions - places.first
    take = places.rows * queries + places.columns - places.first
    put = torch.where(places.weights > 0, take, rows * queries)
    return Choice(first=places.first, take=take, put=put)


def _adapters(
    stack: Stack, factors: Tensor, gradient: Tensor, backbone: Backbone, layers: range
) -> Mapping[int, Adapters]:
    """Returns the low-rank paths of some layers, as views of factors and gradient."""
    paths: dict[int, list[LowRank | None]] = {layer: [] for layer in layers}
    for group in site_groups(backbone.shapes.layers):
        if group[0].layer in paths:
            paths[group[0].layer].append(_path(stack, factors, gradient, group))
    return {
        layer: Adapters(reads=tuple(found[:-3]), o=found[-3], gate_up=found[-2], down=found[-1])
        for layer, found in paths.items()
    }


def _path(
    stack: Stack, factors: Tensor, gradient: Tensor, group: tuple[Site, ...]
) -> LowRank | None:
    parts: list[Part] = []
    scales: list[Tensor] = []
    row = 0
    for output, site in enumerate(group):
        if site in stack.factors:
            b = stack.factors[site][1]
            rank = b.shape[1]
            parts.append(
                Part(
                    output=output,
                    rows=slice(row, row + rank),
                    b=stack.view(b, factors),
                    into_b=stack.view(b, gradient),
                )
            )
            scales.append(stack.scales[site].expand(-1, rank, 1))
            row += rank
    if not parts:
        return None
    first = next(stack.factors[site][0] for site in group if site in stack.factors)
    return LowRank(
        a=stack.view(first, factors, row),
        scale=torch.cat(scales, 1).to(factors.dtype),
        into_a=stack.view(first, gradient, row),
        parts=parts,
    )
