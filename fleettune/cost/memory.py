"""Memory: peak bytes of a training step, from shapes and placement.

    peak = weights + adapters with their optimiser + saved activations + logits of the loss

The runtime's own buffers are left out. Saved activations are what automatic differentiation keeps
for the backward pass without dropout and without recomputation, counted as distinct storages.

Source of the rule: our count of PyTorch's saved tensors for a Llama-like decoder (tests: within
5 %). Against one published runtime (QVAC, Qwen3-1.7B on phones) the sum was 16 to 31 % high, so
read a peak as +-30 %.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleettune.cost.work import inputs_with_gradient
from fleettune.shapes import Groups, Ranks, Shapes

ADAPTER_STATE_BYTES = 16.0
"""Bytes per adapter weight while it trains: weight, gradient, Adam's two moments, in float32."""
LOGIT_BYTES = 8.0
"""Bytes per logit at the peak of the loss: the logits and their gradient, in float32."""


def saved_activations(
    shapes: Shapes,
    lengths: Sequence[int],
    head_tokens: int,
    ranks: Ranks,
) -> int:
    """Returns the elements that the backward pass needs from a forward pass with fused attention.

    Args:
        shapes: The decoder.
        lengths: True token count of each sequence of the batch.
        head_tokens: Tokens on which the vocabulary head runs.
        ranks: The adapters.
    """
    shapes.adapter_parameters(ranks)
    if not ranks:
        return 0
    lowest = min(site.layer for site in ranks)
    tokens = sum(lengths)
    total = head_tokens * shapes.vocab + tokens * (shapes.hidden + sum(ranks.values()))
    for layer in range(lowest, shapes.layers):
        here = frozenset(site.module for site in ranks if site.layer == layer)
        below = layer > lowest
        total += tokens * _matrix_elements(shapes, here, below=below)
        if below or here & {"q", "k", "v"}:
            # queries, keys, values, output, and one log-sum per head
            query, key = shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim
            total += tokens * (2 * query + 2 * key + shapes.heads)
        elif "o" in here:
            total += tokens * shapes.heads * shapes.head_dim
    return total


def memory_peak_bytes(
    shapes: Shapes,
    lengths: Sequence[int],
    ranks: Ranks,
    bits_per_weight: float = 16.0,
    head_tokens: int | None = None,
    activation_bytes: float = 2.0,
) -> float:
    """Returns the bytes held at the peak of one training step with fused attention.

    Args:
        shapes: The decoder.
        lengths: True token count of each sequence of the batch.
        ranks: The adapters that train.
        bits_per_weight: Stored size of a backbone weight, in bits.
        head_tokens: Tokens on which the vocabulary head runs; all of them when None.
        activation_bytes: Size of one saved activation, in bytes.
    """
    supervised = sum(lengths) if head_tokens is None else head_tokens
    saved = saved_activations(shapes, lengths, supervised, ranks)
    return (
        shapes.parameters * bits_per_weight / 8
        + ADAPTER_STATE_BYTES * shapes.adapter_parameters(ranks)
        + activation_bytes * saved
        + LOGIT_BYTES * supervised * shapes.vocab
    )


def shared_bytes(shapes: Shapes, ranks: Ranks, shared: Groups) -> float:
    """Returns what a peak has less where groups of sites hold and optimise one pair each."""
    kept = shapes.kept_parameters(ranks, shared)
    return ADAPTER_STATE_BYTES * (shapes.adapter_parameters(ranks) - kept)


def _matrix_elements(shapes: Shapes, here: frozenset[str], *, below: bool) -> int:
    """Returns the elements per token kept by one layer outside its attention.

    The input norm keeps its input if anything below trains; the second norm likewise; the gated
    activation keeps its input and both factors of its product, each only if the other trains.
    """
    flowing = inputs_with_gradient(here, below=below)
    gate, up = (name in flowing or name in here for name in ("gate", "up"))
    per_hidden = below + ("gate" in flowing) + bool(here & {"q", "k", "v"})
    per_hidden += bool(here & {"gate", "up"})
    per_ffn = 2 * gate + up + ("down" in here)
    return per_hidden * shapes.hidden + per_ffn * shapes.ffn
