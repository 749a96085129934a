"""One training pass of K devices: losses and gradients of all factors, and the layers below it.

Llama's layers run by hand (`fleettune.backbone.decoder_layer`); layers of another build go through
autograd. Below the lowest adapted layer nothing changes during tuning, so the host computes these
hidden states once per example (docs/methods.md#prefix-cache). That saves the host's time only: a
device without a cache of its own is billed for every pass. States beyond a bound in bytes lie in a
temporary file, with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional

from fleettune.backbone.attention import AttentionTables, attention_tables
from fleettune.backbone.causal_lm import Backbone
from fleettune.backbone.decoder_layer import (
    Adapters,
    SavedLayer,
    TopPositions,
    layer_backward,
    layer_forward,
    normalise,
    normalise_backward,
)
from fleettune.backbone.low_rank_path import LowRankPath, MatrixPath
from fleettune.backbone.vocabulary_head import head_losses, losses_and_gradient
from fleettune.kernels.adapter_stack import Stack, apply_adapters, site_groups
from fleettune.kernels.stacked_adamw import gather_gradient
from fleettune.kernels.step_rows import StepRows
from fleettune.shapes import Site

Pass = Callable[[Tensor, StepRows], tuple[Tensor, Tensor]]
"""From the lowest layer's input and a step's rows to every device's loss ``(K,)`` and the
gradient of their sum, laid out as the stack."""
MEMORY_BYTES = 256 * 2**20
"""Largest prefix that a process keeps in memory."""
_TOKENS = 1024


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
    bound = _tables(backbone, hidden.shape[1], 0)
    x = hidden.float()
    for layer in range(cut):
        x, _ = layer_forward(backbone.plain_weights(layer), none, bound, x, None)
    return x


def _by_autograd(
    backbone: Backbone, stack: Stack, cut: int, hidden: Tensor, step: StepRows
) -> tuple[Tensor, Tensor]:
    with apply_adapters(backbone, stack):
        top = backbone.layers(hidden, cut, backbone.shapes.layers)
        states = backbone.model.model.norm(top[step.rows, step.columns])
        losses = _head_losses(backbone, states, step)
        losses.sum().backward()  # pyright: ignore[reportUnknownMemberType] - torch's own type
    return losses.detach().view(len(stack.flat), -1).sum(1), gather_gradient(stack)


def _head_losses(backbone: Backbone, states: Tensor, step: StepRows) -> Tensor:
    """Returns every token's weighted loss, as a node of autograd's graph."""
    family = backbone.family
    if family.softcap is None:
        scaled = states if family.logit_scale == 1 else states * family.logit_scale
        return head_losses(backbone.open_head, scaled, step.targets, step.weights)
    logits = backbone.finish_logits(backbone.head(states).float())
    return functional.cross_entropy(logits, step.targets, reduction="none") * step.weights


def _by_hand(backbone: Backbone, stack: Stack, cut: int) -> Pass:
    dtype, layers = backbone.dtype, backbone.shapes.layers
    gradient = torch.zeros_like(stack.flat)
    # in fp32 the very factors, in bf16 a copy that every pass renews
    factors = stack.flat.to(dtype)
    weights = {layer: backbone.layer_weights(layer) for layer in range(cut, layers)}
    adapters = _adapters(stack, factors, gradient, backbone, range(cut, layers))
    trained = [site.layer for site in stack.factors]
    lowest = min(trained)
    tables_of = cache(partial(_tables, backbone))

    @torch.no_grad()
    def run(hidden: Tensor, step: StepRows) -> tuple[Tensor, Tensor]:
        if factors.dtype != stack.flat.dtype:
            factors.copy_(stack.flat)
        x, positions = hidden.float(), hidden.shape[1]
        choice = _choice(step, len(hidden), positions)
        kept: dict[int, tuple[SavedLayer, AttentionTables, TopPositions | None]] = {}
        for layer in range(cut, layers):
            chosen = choice if layer == layers - 1 else None
            bound = tables_of(positions, step.first if chosen else 0)
            x, own = layer_forward(weights[layer], adapters[layer], bound, x, chosen)
            kept[layer] = own, bound, chosen
        losses, back = _top(backbone, x, step)
        for layer in reversed(range(lowest, layers)):
            own, bound, chosen = kept.pop(layer)
            found = layer_backward(
                weights[layer], adapters[layer], bound, own, back, chosen, lowest=layer == lowest
            )
            back = back if found is None else found
        return losses.view(len(stack.flat), -1).sum(1), gradient

    return run


def _top(backbone: Backbone, x: Tensor, step: StepRows) -> tuple[Tensor, Tensor]:
    """Returns every token's loss and the gradient of the last layer's output."""
    norm = backbone.model.model.norm
    weight, epsilon = norm.weight.float(), norm.variance_epsilon
    states, inverse = normalise(x, weight, epsilon, backbone.dtype)
    losses, own = losses_and_gradient(backbone.open_head, states, step.targets, step.weights)
    back = torch.zeros_like(x)
    normalise_backward(own, x, weight, inverse, back)
    return losses, back


def _tables(backbone: Backbone, positions: int, first: int) -> AttentionTables:
    shapes = backbone.shapes
    cosine, sine = backbone.rotary(positions)
    heads = (shapes.heads, shapes.kv_heads, shapes.head_dim)
    return attention_tables(cosine, sine, heads, first, backbone.dtype)


def _choice(step: StepRows, rows: int, positions: int) -> TopPositions:
    queries = positions - step.first
    take = step.rows * queries + step.columns - step.first
    put = torch.where(step.weights > 0, take, rows * queries)
    return TopPositions(first=step.first, take=take, put=put)


def _adapters(
    stack: Stack, factors: Tensor, gradient: Tensor, backbone: Backbone, layers: range
) -> Mapping[int, Adapters]:
    """Returns the low-rank paths of some layers, as views of factors and gradient."""
    paths: dict[int, list[LowRankPath | None]] = {layer: [] for layer in layers}
    for group in site_groups(backbone.shapes.layers):
        if group[0].layer in paths:
            paths[group[0].layer].append(_path(stack, factors, gradient, group))
    return {
        layer: Adapters(reads=tuple(found[:-3]), o=found[-3], gate_up=found[-2], down=found[-1])
        for layer, found in paths.items()
    }


def _path(
    stack: Stack, factors: Tensor, gradient: Tensor, group: tuple[Site, ...]
) -> LowRankPath | None:
    parts: list[MatrixPath] = []
    scales: list[Tensor] = []
    row = 0
    for output, site in enumerate(group):
        if site in stack.factors:
            b = stack.factors[site][1]
            rank = b.shape[1]
            parts.append(
                MatrixPath(
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
    return LowRankPath(
        a=stack.view(first, factors, row),
        scale=torch.cat(scales, 1).to(factors.dtype),
        into_a=stack.view(first, gradient, row),
        parts=parts,
    )


def cache_prefix(
    backbone: Backbone, tokens: Tensor, lengths: Tensor, cut: int, memory_bytes: int = MEMORY_BYTES
) -> Tensor:
    """Returns the input of layer `cut` of every example, ``(examples, positions, hidden)``.

    Args:
        backbone: The model.
        tokens: Examples, ``(examples, positions)``, padded on the right.
        lengths: How many positions of each are of use; the others hold anything finite.
        cut: The first layer that is not computed.
        memory_bytes: Beyond this size the states lie in a file without a name, which goes with
            them: users' texts can be read from states, and a process may be killed.
    """
    longest = int(lengths.max())
    shape = (len(tokens), longest, backbone.shapes.hidden)
    dtype = backbone.dtype
    size = math.prod(shape)
    if size * dtype.itemsize <= memory_bytes:
        states = torch.zeros(shape, dtype=dtype)
    else:
        with TemporaryDirectory(prefix="fleettune-prefix-") as folder:
            # a new file reads as zeros, and stays while it is mapped
            file = str(Path(folder) / "states")
            states = torch.from_file(file, shared=True, size=size, dtype=dtype, device="cpu")
        states = states.view(shape)
    _fill(backbone, tokens, lengths, cut, states)
    return states


@torch.no_grad()
def _fill(backbone: Backbone, tokens: Tensor, lengths: Tensor, cut: int, states: Tensor) -> None:
    """Writes the states of every example, of examples of similar length together."""
    order = torch.argsort(lengths, stable=True)
    rows = max(1, _TOKENS // int(lengths.max()))
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        longest = int(lengths[chosen].max())
        found = lower_layers(backbone, backbone.embed(tokens[chosen, :longest]), cut)
        states[chosen.to(states.device), :longest] = found.to(states.device, states.dtype)
