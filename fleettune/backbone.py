"""Backbones: frozen causal language models with Llama-like layers, loaded from a folder or hub id.

The only module where transformers' loose types are let in; everything beyond sees tensors.
Weights are read from safetensors only.
"""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fleettune.precision import DTYPES, REFERENCE
from fleettune.processor import CPU, exact_products
from fleettune.sites import MODULES, Site
from fleettune.work import Shapes

POCKET = "pocket"
"""The path that stands for the built-in model."""
POCKET_FOLDER = Path(__file__).parent / "models" / "pocket"

_ATTENTION = ("q", "k", "v", "o")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSource:
    """Where a backbone comes from and how its text is laid out.

    Attributes:
        name: Short name, shown in reports.
        path: Folder with ``config.json``, safetensors and ``tokenizer.json``, a hub id, or
            ``pocket`` for the built-in model.
        template: Text around question and answer, a key of `fleettune.tokens.TEMPLATES`.
        max_tokens: Longest example, in tokens.
    """

    name: str
    path: str
    template: str
    max_tokens: int

    def check(self) -> None:
        """Raises ValueError if the folder cannot hold a model; loads nothing."""
        if self.max_tokens < 8:
            raise ValueError(f"model.max_tokens must be >= 8 tokens, got {self.max_tokens}")
        read_shapes(resolve_folder(self.path))


@dataclass(frozen=True, slots=True)
class Backbone:
    """A frozen model in memory.

    Attributes:
        model: The transformers causal language model, in evaluation mode.
        shapes: Its shapes.
    """

    model: Any
    shapes: Shapes

    @property
    def device(self) -> torch.device:
        """Where the weights are, and every tensor of a pass."""
        return self.head.weight.device

    def linear(self, site: Site) -> nn.Linear:
        """Returns the weight matrix of one site."""
        layer = self.model.model.layers[site.layer]
        parent = layer.self_attn if site.module in _ATTENTION else layer.mlp
        return getattr(parent, f"{site.module}_proj")

    def embed(self, tokens: Tensor) -> Tensor:
        """Returns input embeddings, ``(rows, positions, hidden)``."""
        return self.model.model.embed_tokens(tokens)

    def layers(
        self,
        hidden: Tensor,
        first: int,
        last: int,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Returns the hidden state after layers ``first`` to ``last - 1`` of right-padded rows.

        Without a mask attention is causal, so a real token never sees the padding to its right.
        A mask is boolean, ``(rows, 1, positions, positions)``, true where attention is allowed.
        """
        if positions is None:
            positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = self.model.model.rotary_emb(hidden, positions)
        for layer in self.model.model.layers[first:last]:
            out = layer(
                hidden,
                attention_mask=mask,
                position_ids=positions,
                position_embeddings=rotary,
                use_cache=False,
            )
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden

    def top_at(self, hidden: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Returns what the vocabulary head reads at some positions, from the last layer's input.

        Behind its attention the last layer works on every position by itself, so there it runs on
        these positions alone. Layers of another build than Llama's run whole.
        """
        last = self.shapes.layers
        if self.model.config.model_type != "llama":
            return self.model.model.norm(self.layers(hidden, last - 1, last)[rows, positions])
        layer = self.model.model.layers[last - 1]
        order = torch.arange(hidden.shape[1], device=hidden.device)[None]
        attended = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden),
            position_embeddings=self.model.model.rotary_emb(hidden, order),
            attention_mask=None,
        )[0]
        chosen = (hidden + attended)[rows, positions]
        chosen = chosen + layer.mlp(layer.post_attention_layernorm(chosen))
        return self.model.model.norm(chosen)

    @property
    def head(self) -> nn.Linear:
        """The vocabulary head."""
        return self.model.lm_head

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns next-token logits of hidden states, ``(..., vocabulary)``, as fp32."""
        return self.model.lm_head(self.model.model.norm(hidden)).float()

    def weights(self) -> Iterator[tuple[Site, Tensor]]:
        """Yields every site's weight, ``(n_out, n_in)``, in forward order."""
        for layer in range(self.shapes.layers):
            for module in MODULES:
                site = Site(layer, module)
                yield site, self.linear(site).weight


def resolve_folder(path: str) -> Path:
    """Returns the local folder of a model: a folder as given, or a hub id's snapshot.

    Raises:
        ValueError: If it is neither a folder nor to be had from the hub.
    """
    folder = POCKET_FOLDER if path == POCKET else Path(path)
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() or path.startswith((".", "/")) or path.count("/") != 1:
        raise ValueError(
            f"model.path must be a folder with config.json or a hub id owner/name, got {path!r}; "
            "for smollm2_135m run `make smollm2` first"
        )
    return _hub_snapshot(path)


def _hub_snapshot(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only hub ids need it

    wanted = ["*.json", "*.safetensors"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except Exception as error:
        raise ValueError(
            f"model.path {hub_id!r} is no local folder and could not be had from the hub "
            f"({type(error).__name__}); give a folder with config.json and safetensors"
        ) from error


@lru_cache(maxsize=32)
def read_shapes(folder: Path) -> Shapes:
    """Returns a model's shapes from its ``config.json``, without loading weights.

    Raises:
        ValueError: If the file is missing or the model is not Llama-like.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(f"model folder {folder} holds no config.json")
    config = json.loads(file.read_text())
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    missing = [name for name in (*names, "vocab_size") if name not in config]
    if missing:
        raise ValueError(
            f"model in {folder} must be Llama-like; its config.json lacks {', '.join(missing)}"
        )
    heads = config["num_attention_heads"]
    return Shapes(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        ffn=config["intermediate_size"],
        vocab=config["vocab_size"],
    )


def load_backbone(folder: Path, precision: str = REFERENCE, processor: str = CPU) -> Backbone:
    """Returns the model of a folder, frozen and in evaluation mode.

    Args:
        folder: The model's folder.
        precision: ``reference`` (fp32) or ``fast`` (bf16), a key of `fleettune.precision.DTYPES`.
        processor: Where its weights go, one of `fleettune.processor.PROCESSORS`.

    Raises:
        ValueError: If its layers are not Llama-like.
    """
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds of import

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[precision], use_safetensors=True, local_files_only=True
    )
    if processor != CPU:
        exact_products()
        model.to(processor)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    backbone = Backbone(model, read_shapes(folder))
    inner = getattr(model, "model", None)
    if not all(hasattr(inner, part) for part in ("layers", "rotary_emb", "norm", "embed_tokens")):
        raise ValueError(
            f"model in {folder} must have Llama-like layers (q, k, v, o, gate, up, down), "
            f"got {type(model).__name__}"
        )
    return backbone
