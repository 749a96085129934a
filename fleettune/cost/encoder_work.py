"""Encoder work: FLOP and memory traffic of a pass over a BERT-like encoder, from its shapes alone.

A layer has four square matrices of attention and two of its feed-forward part, where a Llama-like
decoder has three (`fleettune.cost.work`): with ``ffn = 4 hidden`` that is 12 hidden^2 weights, 24
hidden^2 FLOP a token. Source: Devlin et al. 2019, arXiv:1810.04805, sec. 3, counted as
`fleettune.cost.work` counts; the tests hold it equal to `torch.utils.flop_counter`. Left out: looking up
embeddings, norms, activations, softmax, biases, the pooler, which mean pooling does not use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from fleettune.cost.work import ACTIVATION_BYTES, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShapes:
    """Sizes of a BERT-like encoder: all that its work depends on."""

    hidden: int
    layers: int
    ffn: int

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be >= 1, got {getattr(self, field.name)}")

    @property
    def linear_parameters(self) -> int:
        """Weights of the matrices of all layers: no embedding, no norm, no bias."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.ffn)


def encoder_work(shapes: EncoderShapes, lengths: Sequence[int], bytes_per_weight: float) -> Work:
    """Returns the work of one pass over a batch; every token attends to every other of its text.

    Traffic reads each weight once, and moves the input and output of every matrix.

    Args:
        shapes: The encoder.
        lengths: Tokens of every text, without padding.
        bytes_per_weight: Stored size of a weight, in bytes.
    """
    if not lengths:
        return Work()
    if min(lengths) < 1:
        raise ValueError(f"lengths must be >= 1 token, got {list(lengths)}")
    tokens = sum(lengths)
    scores = 4 * shapes.layers * shapes.hidden * sum(length**2 for length in lengths)
    moved = tokens * shapes.layers * (10 * shapes.hidden + 2 * shapes.ffn)
    return Work(
        flop=float(2 * tokens * shapes.linear_parameters + scores),
        traffic_bytes=bytes_per_weight * shapes.linear_parameters + ACTIVATION_BYTES * moved,
    )
