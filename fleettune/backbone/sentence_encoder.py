"""Sentence encoders: BERT-like models whose last hidden states, averaged, stand for a text.

As `fleettune.backbone.causal_lm`, a place where transformers' loose types are let in. Weights are
read from safetensors in a local folder only.
"""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fleettune.backbone.processor import CPU, DTYPES, REFERENCE, exact_products

KINDS = ("bert",)
"""Values of ``model_type`` in a ``config.json`` that are encoders."""


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """A frozen encoder in memory."""

    model: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are, and every tensor of a pass."""
        return self.model.device

    def hidden(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Returns the last hidden states of padded rows, ``(rows, positions, hidden)``.

        Args:
            tokens: ``(rows, positions)``.
            real: True where a position holds a token; no token sees the others.
        """
        return self.model(input_ids=tokens, attention_mask=real.long()).last_hidden_state


@lru_cache(maxsize=32)
def is_sentence_encoder(folder: Path) -> bool:
    """Whether a folder's ``config.json`` describes an encoder; False without one."""
    file = folder / "config.json"
    return file.is_file() and json.loads(file.read_text()).get("model_type") in KINDS


def load_sentence_encoder(
    folder: Path, precision: str = REFERENCE, processor: str = CPU
) -> SentenceEncoder:
    """Returns the encoder of a folder, frozen and in evaluation mode.

    Args:
        folder: The encoder's folder.
        precision: As `fleettune.backbone.causal_lm.load_backbone`.
        processor: As there.
    """
    from transformers import AutoModel  # noqa: PLC0415 - seconds of import

    model: Any = AutoModel.from_pretrained(
        folder, dtype=DTYPES[precision], use_safetensors=True, local_files_only=True
    )
    if processor != CPU:
        exact_products()
        model.to(processor)
    model.eval()
    model.requires_grad_(requires_grad=False)
    return SentenceEncoder(model)
