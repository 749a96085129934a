"""Causal attention over short sequences with rotary positions, forward and backward by hand.

For some tens of positions two batched products and a softmax are up to seven times as fast as the
library's fused kernel (docs/LOG.md). Query heads that share keys are rows of one product. A
rotation is a multiplication by complex numbers; its gradient is the one by their conjugates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTables:
    """Rotations and mask of attention over one number of positions.

    Attributes:
        kv_heads: Heads of keys and values.
        head_dim: Width of a head.
        turns: Rotation of every position as complex numbers, ``(positions, head_dim / 2)``.
        query_turns: The queries' rotations, times ``1 / sqrt(head_dim)``.
        mask: 0 where a query may look and minus infinity elsewhere,
            ``(heads per kv head * queries, positions)``.
    """

    kv_heads: int
    head_dim: int
    turns: Tensor
    query_turns: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAttention:
    """Tensors of the forward pass that the backward pass reads, heads grouped and rotated."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    weights: Tensor


def attention_tables(
    cosine: Tensor, sine: Tensor, heads: tuple[int, int, int], first: int, dtype: torch.dtype
) -> AttentionTables:
    """Returns the tables of one length.

    Args:
        cosine: Of every position, ``(positions, head_dim)``, both halves alike; fp32.
        sine: Likewise.
        heads: Query heads, heads of keys and values, width of a head.
        first: The first position that has a query.
        dtype: The activations' precision.
    """
    queries, kv_heads, head_dim = heads
    positions, half = len(cosine), head_dim // 2
    turns = torch.complex(cosine[:, :half].contiguous(), sine[:, :half].contiguous())
    hidden = torch.full((positions, positions), float("-inf")).triu(1)[first:]
    return AttentionTables(
        kv_heads=kv_heads,
        head_dim=head_dim,
        turns=turns,
        query_turns=turns[first:] * head_dim**-0.5,
        mask=hidden.repeat(queries // kv_heads, 1).to(dtype),
    )


def attend(
    tables: AttentionTables, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, SavedAttention]:
    """Returns the attended values, ``(rows, queries, heads * head_dim)``, and what is kept.

    Args:
        tables: Rotation and mask of this length.
        q: Queries, ``(rows, queries, heads * head_dim)``.
        k: Keys, ``(rows, positions, kv_heads * head_dim)``.
        v: Values, likewise.
    """
    queries, keys = _turned(tables, q, tables.query_turns), _turned(tables, k, tables.turns)
    values = _grouped(tables, v)
    scores = torch.baddbmm(tables.mask, queries, keys.transpose(1, 2))
    # the softmax of bf16 is slower than that of fp32 with both conversions
    weights = torch.softmax(scores.float(), -1).to(q.dtype)
    out = torch.bmm(weights, values).view(len(q), -1, q.shape[1], tables.head_dim)
    return _flat(out), SavedAttention(queries=queries, keys=keys, values=values, weights=weights)


def attend_backward(
    tables: AttentionTables, kept: SavedAttention, gradient: Tensor
) -> list[Tensor]:
    """Returns the gradients of queries, keys and values, shaped as in `attend`.

    Args:
        tables: Rotation and mask of this length.
        kept: What `attend` kept.
        gradient: Of the attended values, ``(rows, queries, heads * head_dim)``.
    """
    own = _grouped(tables, gradient)
    into_weights = torch.bmm(own, kept.values.transpose(1, 2))
    into_scores = cast(Any, torch)._softmax_backward_data(into_weights, kept.weights, -1, own.dtype)
    into_q = torch.bmm(into_scores, kept.keys)
    into_k = torch.bmm(into_scores.transpose(1, 2), kept.queries)
    into_v = torch.bmm(kept.weights.transpose(1, 2), own)
    rows = len(gradient)
    return [
        _turned_back(tables, into_q, tables.query_turns, rows),
        _turned_back(tables, into_k, tables.turns, rows),
        _flat(into_v.view(rows, tables.kv_heads, -1, tables.head_dim)),
    ]


def _heads(tables: AttentionTables, x: Tensor) -> Tensor:
    """Returns a view ``(rows, heads, positions, head_dim)`` of ``(rows, positions, width)``."""
    return x.view(*x.shape[:2], -1, tables.head_dim).transpose(1, 2)


def _flat(heads: Tensor) -> Tensor:
    """Returns ``(rows, positions, width)`` of ``(rows, heads, positions, head_dim)``, a copy."""
    return heads.transpose(1, 2).flatten(2)


def _grouped(tables: AttentionTables, x: Tensor) -> Tensor:
    """Returns ``(rows * kv_heads, heads per kv head * positions, head_dim)``, a copy."""
    return _heads(tables, x).reshape(x.shape[0] * tables.kv_heads, -1, tables.head_dim)


def _turned(tables: AttentionTables, x: Tensor, turns: Tensor) -> Tensor:
    """Returns rotated heads, grouped; real and imaginary parts alternate."""
    half = tables.head_dim // 2
    heads = _heads(tables, x.float())
    pairs = torch.empty(*heads.shape[:3], half, dtype=torch.complex64)
    torch.complex(heads[..., :half], heads[..., half:], out=pairs)
    pairs.mul_(turns)
    turned = torch.view_as_real(pairs).view(x.shape[0] * tables.kv_heads, -1, tables.head_dim)
    return turned.to(x.dtype)


def _turned_back(tables: AttentionTables, gradient: Tensor, turns: Tensor, rows: int) -> Tensor:
    """Returns the gradient of ``(rows, positions, width)`` from that of rotated heads."""
    positions, half = turns.shape
    pairs = torch.view_as_complex(gradient.float().view(rows, -1, positions, half, 2))
    pairs.mul_(turns.conj())
    heads = pairs.shape[1]
    into = torch.empty(rows, positions, heads, 2, half, dtype=gradient.dtype)
    into.copy_(torch.view_as_real(pairs).permute(0, 2, 1, 4, 3))
    return into.view(rows, positions, -1)
