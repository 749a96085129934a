"""Work: FLOP and memory traffic of a pass over a decoder, from its shapes alone.

One multiplication with its addition is 2 FLOP. Counted are the matrix products of a Llama-like
decoder with low-rank adapters; attention is the full square of each sequence's own length (a
kernel that skips the masked half does half of it). Left out: padding, norms, activations, softmax,
rotary positions, biases, the optimiser. Source: Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1,
refined per matrix; the tests hold both passes equal to `torch.utils.flop_counter`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import TypeAlias

from fleettune.shapes import Ranks, Shapes

Lengths: TypeAlias = Sequence[int]
"""True token count of each sequence of a batch."""


ACTIVATION_BYTES = 2.0
"""Bytes of one activation or cached key or value in traffic: half precision (our convention)."""
ADAPTER_BYTES = 4.0
"""Bytes of one adapter weight: adapters are kept in single precision (our convention)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """FLOP and bytes moved in memory; a commutative monoid under addition, `Work()` is zero."""

    flop: float = 0.0
    traffic_bytes: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < math.inf:
                raise ValueError(f"{field.name} must be finite, >= 0, got {self}")

    def __add__(self, other: Work) -> Work:
        moved_bytes = self.traffic_bytes + other.traffic_bytes
        return Work(flop=self.flop + other.flop, traffic_bytes=moved_bytes)

    def __mul__(self, times: float) -> Work:
        return Work(flop=self.flop * times, traffic_bytes=self.traffic_bytes * times)


def forward_work(
    shapes: Shapes,
    lengths: Lengths,
    head_tokens: int,
    ranks: Ranks,
    bytes_per_weight: float = 2.0,
    passes: int = 1,
) -> Work:
    """Returns the work of one forward pass over a batch, or of several over parts of it.

    Traffic reads each weight and adapter once per pass, and moves the input and output of every
    matrix.

    Args:
        shapes: The decoder.
        lengths: Of the batch, without padding.
        head_tokens: Tokens on which the vocabulary head runs (supervised ones only).
        ranks: The adapters, kept apart from the weights (not merged).
        bytes_per_weight: Stored size of a backbone weight, in bytes.
        passes: How many passes share the sequences, each once.
    """
    tokens, attention = _count(shapes, lengths, head_tokens)
    head, adapters = shapes.hidden * shapes.vocab, shapes.adapter_parameters(ranks)
    flop = 2 * tokens * (shapes.linear_parameters + adapters) + 2 * head_tokens * head
    weights = shapes.linear_parameters + (head if head_tokens else 0)
    traffic = passes * (bytes_per_weight * weights + ADAPTER_BYTES * adapters)
    traffic += ACTIVATION_BYTES * _moved(shapes, tokens, head_tokens, shapes.layers)
    return Work(flop=float(flop + 2 * shapes.layers * attention), traffic_bytes=traffic)


def backward_work(
    shapes: Shapes,
    lengths: Lengths,
    head_tokens: int,
    ranks: Ranks,
    bytes_per_weight: float = 2.0,
    passes: int = 1,
) -> Work:
    """Returns the work of the backward pass that trains the adapters only.

    Frozen matrices pass a gradient to their input but get none themselves. Layers below the
    lowest adapted one do nothing; in that layer only what lies above an adapted matrix works.
    Traffic: head and layers from the lowest adapted one up once per pass, their activations twice
    (value and gradient), each adapter twice (read and written) per pass.
    """
    tokens, attention = _count(shapes, lengths, head_tokens)
    head, adapters = shapes.hidden * shapes.vocab, shapes.adapter_parameters(ranks)
    if not ranks:
        return Work()
    matrices, per_layer = shapes.matrices(), shapes.linear_parameters // shapes.layers
    lowest = min(site.layer for site in ranks)
    here = {site.module for site in ranks if site.layer == lowest}
    passed = inputs_with_gradient(here, below=False)
    above = shapes.layers - 1 - lowest
    weights = above * per_layer + sum(math.prod(matrices[module]) for module in passed)
    scores = sum(("v" in here, not here.isdisjoint("qk"), "q" in here, "k" in here))  # dV dP dQ dK
    flop = 2 * (head_tokens * head + tokens * weights) + attention * (4 * above + scores)
    for site, rank in ranks.items():
        n_in, n_out = matrices[site.module]
        to_input = site.layer > lowest or site.module in passed
        flop += 2 * tokens * rank * (2 * n_out + n_in + to_input * n_in)
    read = bytes_per_weight * ((above + 1) * per_layer + head)
    traffic = passes * (read + 2 * ADAPTER_BYTES * adapters)
    traffic += 2 * ACTIVATION_BYTES * _moved(shapes, tokens, head_tokens, above + 1)
    return Work(flop=float(flop), traffic_bytes=traffic)


def decode_work(
    shapes: Shapes, prompt_tokens: int, new_tokens: int, ranks: Ranks, bytes_per_weight: float = 2.0
) -> Work:
    """Returns the work of writing new tokens one by one after a prompt.

    Each is one pass that reads all weights, the adapters, and keys and values up to itself. The
    pass over the prompt is `forward_work` (prefill) and not included.
    """
    if min(prompt_tokens, new_tokens) < 0:
        raise ValueError(f"token counts must be >= 0, got {prompt_tokens} and {new_tokens}")
    contexts = new_tokens * prompt_tokens + new_tokens * (new_tokens + 1) // 2
    weights = shapes.linear_parameters + shapes.hidden * shapes.vocab
    adapters = shapes.adapter_parameters(ranks)
    per_head = shapes.layers * contexts * shapes.head_dim
    flop = 2 * new_tokens * (weights + adapters) + 4 * shapes.heads * per_head
    traffic = new_tokens * (bytes_per_weight * weights + ADAPTER_BYTES * adapters)
    traffic += ACTIVATION_BYTES * 2 * shapes.kv_heads * per_head
    return Work(flop=float(flop), traffic_bytes=traffic)


def inputs_with_gradient(here: AbstractSet[str], *, below: bool) -> frozenset[str]:
    """Returns the modules of a layer with adapted modules `here` whose input needs a gradient."""
    found: set[str] = set()
    for stage in (("q", "k", "v"), ("o",), ("gate", "up"), ("down",)):
        if below:
            found.update(stage)
        below = below or not here.isdisjoint(stage)
    return frozenset(found)


def _count(shapes: Shapes, lengths: Lengths, head_tokens: int) -> tuple[int, int]:
    """Returns the tokens of a checked batch, and the FLOP of one attention product per layer."""
    tokens = sum(lengths)
    if any(length < 1 for length in lengths) or not 0 <= head_tokens <= tokens:
        raise ValueError(f"lengths >= 1 with head_tokens among them, got {lengths}, {head_tokens}")
    return tokens, 2 * shapes.heads * shapes.head_dim * sum(length**2 for length in lengths)


def _moved(shapes: Shapes, tokens: int, head_tokens: int, layers: int) -> int:
    """Returns the activations that the matrices of some layers and the head take in and give."""
    per_token = sum(map(sum, shapes.matrices().values()))
    return tokens * layers * per_token + head_tokens * (shapes.hidden + shapes.vocab)
