"""Releases whose weights are made without training: rounded, drawn anew, or rewritten.

Quantised weights are rounded to 8 or 4 bits, symmetric, with a scale per group. 8 bits: one scale
per output channel. 4 bits: one per 64 inputs of an output channel. A scale is the group's largest
magnitude over 127 or 7, kept in half precision. Devices are sent the rounded weights and scales;
the store holds what they stand for, in half precision, because that is what the simulation computes
with. Every site's matrix is rounded, embedding and head where asked for, norms and biases never.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from fleettune.releases.model_files import open_weights
from fleettune.seeds import Purpose, stream

INT4_GROUP = 64
"""Inputs of an output channel that share a 4-bit scale."""

HALF_BYTES = 2
"""Bytes of a weight that is not rounded, and of a scale."""

_SITE = re.compile(r"layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")
_TABLE = re.compile(r"(embed_tokens|lm_head)\.weight$")


def quantise(model: Any, bits: int, *, embeddings: bool) -> None:  # noqa: ANN401 - transformers
    """Rounds a model's matrices in place.

    Args:
        model: A Llama-like causal language model.
        bits: 8 or 4.
        embeddings: True if embedding and head are rounded as well.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if _is_rounded(name, embeddings=embeddings):
                parameter.copy_(round_trip(parameter, bits))


def round_trip(weight: Tensor, bits: int) -> Tensor:
    """Returns what a matrix, ``(n_out, n_in)``, stands for once it is rounded to `bits`."""
    n_out, n_in = weight.shape
    size = _group(n_in, bits)
    padded = pad(weight.float(), (0, -n_in % size)).reshape(n_out, -1, size)
    levels = 2 ** (bits - 1) - 1
    scale = (padded.abs().amax(dim=-1, keepdim=True) / levels).half().float()
    # a group of zeros has no scale, and stays
    whole = torch.where(scale > 0, padded / scale, torch.zeros(())).round().clamp(-levels, levels)
    return (whole * scale).reshape(n_out, -1)[:, :n_in]


def quantised_bytes(folder: Path, bits: int, *, embeddings: bool) -> int:
    """Returns the bytes of a quantised model on the wire; names and shapes are not counted."""
    total = 0
    with open_weights(folder) as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping
            shape: list[int] = tensors.shape(name)
            if _is_rounded(name, embeddings=embeddings):
                n_out, n_in = shape
                groups = -(-n_in // _group(n_in, bits))
                total += n_out * (-(-n_in * bits // 8) + HALF_BYTES * groups)
            else:
                total += HALF_BYTES * math.prod(shape)
    return total


def _group(n_in: int, bits: int) -> int:
    return INT4_GROUP if bits == 4 else n_in


def _is_rounded(name: str, *, embeddings: bool) -> bool:
    return bool(_SITE.search(name) or (embeddings and _TABLE.search(name)))


def refresh(model: Any, seed: int) -> None:  # noqa: ANN401 - a transformers model
    """Draws all weights of a model anew, in place, from a stream of their own.

    Matrices are normal with the deviation that the model's configuration asks for, norms are one,
    biases zero, as transformers begins a Llama.

    Args:
        model: A Llama-like causal language model.
        seed: Key of the stream.
    """
    rng = stream(seed, Purpose.RELEASE, 3)
    deviation = model.config.initializer_range
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                drawn = rng.normal(0.0, deviation, size=tuple(parameter.shape))
                parameter.copy_(torch.as_tensor(drawn))
            else:
                parameter.fill_(0.0 if name.endswith(".bias") else 1.0)


def reparametrise(model: Any, scale: float) -> None:  # noqa: ANN401 - a transformers model
    """Multiplies v of every layer by `scale` and divides o by it, in place.

    In half precision, which releases are shipped in, a power of two changes no mantissa, so the
    function is exactly the same but for subnormal weights; other factors round every weight of v
    and o once more. The bias of o stands behind the product and stays.

    Args:
        model: A Llama-like causal language model.
        scale: The factor, > 0.
    """
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.v_proj.weight.mul_(scale)
            if attention.v_proj.bias is not None:
                attention.v_proj.bias.mul_(scale)
            attention.o_proj.weight.div_(scale)
