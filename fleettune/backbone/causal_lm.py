"""Backbones: frozen causal language models with Llama-like layers, loaded from a folder or hub id.

The only module where transformers' loose types are let in; everything beyond sees tensors.
Weights are read from safetensors only.
"""

# pyright: basic, reportCallIssue=false

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fleettune.backbone.decoder_layer import Weights
from fleettune.backbone.frozen_linear import FrozenLinear, freeze_weight
from fleettune.backbone.model_family import Family, family_of, layer_mask, split_fused
from fleettune.backbone.processor import CPU, DTYPES, REFERENCE, exact_products
from fleettune.backbone.vocabulary_head import Head, open_head
from fleettune.records import build_value, read_object
from fleettune.shapes import Shapes, Site

MODELS_FOLDER = Path(str(files("fleettune"))) / "models"
BUILT_IN_MODELS = ("pocket", "pocket_v1")
"""Paths that stand for built-in models: the built-in world's, and the first world's."""
POCKET_FOLDER, POCKET_V1_FOLDER = (MODELS_FOLDER / name for name in BUILT_IN_MODELS)

_LONGEST_NAME = 255
"""Bytes of a file's name, beyond which a file system does not even look for it."""
_ATTENTION = ("q", "k", "v", "o")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSource:
    """Where a backbone comes from and how its text is laid out.

    Attributes:
        name: Short name, shown in reports.
        path: Folder with ``config.json``, safetensors and ``tokenizer.json``, a hub id, or
            ``pocket`` for the built-in model.
        template: Text around question and answer, a key of `fleettune.data.tokens.TEMPLATES`.
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
        opened: Weights laid out for training, by layer or ``head``; filled when first used.
    """

    model: Any
    shapes: Shapes
    opened: dict[Any, Any] = field(default_factory=dict[Any, Any], compare=False)

    @property
    def family(self) -> Family:
        """What the model does around its layers."""
        if "family" not in self.opened:
            self.opened["family"] = family_of(self.model, self.shapes.layers)
        return self.opened["family"]

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
        scale = self.family.embedding_scale
        embedded = self.model.model.embed_tokens(tokens)
        return embedded if scale == 1 else embedded * scale

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
        family, kinds = self.family, self.family.kinds[first:last]
        masks = {k: layer_mask(family, k, positions, mask, hidden.dtype) for k in set(kinds)}
        rotary = {k: self._rotary(hidden, positions, k) for k in set(kinds)}
        for layer, kind in zip(self.model.model.layers[first:last], kinds, strict=True):
            out = layer(
                hidden,
                attention_mask=masks[kind],
                position_ids=positions,
                position_embeddings=rotary[kind],
                use_cache=False,
            )
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden

    def _rotary(self, hidden: Tensor, positions: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        made = self.model.model.rotary_emb
        if self.family.rotary_by_kind:
            return made(hidden, positions, kind)
        return made(hidden, positions)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.model.lm_head.weight.dtype

    @property
    def is_plain_llama(self) -> bool:
        """Whether the layers are Llama's own: no biases, SiLU, two norms."""
        config = self.model.config
        biased = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
        return config.model_type == "llama" and config.hidden_act == "silu" and not biased

    def layer_weights(self, layer: int) -> Weights:
        """Returns one layer's weights, laid out for training when first asked for.

        The top layer's queries are apart: they read other positions than keys and values.
        """
        if layer not in self.opened:
            self.opened[layer] = self.plain_weights(layer, packs=True)
        return self.opened[layer]

    def plain_weights(self, layer: int, *, packs: bool = False) -> Weights:
        """Returns one layer's weights, by default as they are, without any copy."""
        own = self.model.model.layers[layer]
        norms = own.input_layernorm, own.post_attention_layernorm
        groups = ("q", "kv") if layer == self.shapes.layers - 1 else ("qkv",)

        def of(module: str) -> FrozenLinear:
            return freeze_weight(self.linear(Site(layer, module)).weight, packs=packs)

        return Weights(
            norms=(norms[0].weight.float(), norms[1].weight.float()),
            epsilon=norms[0].variance_epsilon,
            reads=tuple(tuple(map(of, group)) for group in groups),
            o=(of("o"),),
            gate_up=(of("gate"), of("up")),
            down=(of("down"),),
        )

    @property
    def open_head(self) -> Head:
        """The vocabulary head, laid out for training when first asked for."""
        if "head" not in self.opened:
            self.opened["head"] = open_head(self.head)
        return self.opened["head"]

    def rotary(self, positions: int) -> tuple[Tensor, Tensor]:
        """Returns cosine and sine of the first positions, ``(positions, head_dim)``, fp32."""
        where = torch.arange(positions)[None]
        cosine, sine = self.model.model.rotary_emb(torch.zeros(1), where)
        return cosine[0], sine[0]

    @property
    def head(self) -> nn.Linear:
        """The vocabulary head."""
        return self.model.lm_head

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns next-token logits of hidden states, ``(..., vocabulary)``, as fp32."""
        found = self.model.lm_head(self.model.model.norm(hidden)).float()
        return self.finish_logits(found)

    def finish_logits(self, found: Tensor) -> Tensor:
        """Returns logits as the model gives them, from what its head gives."""
        family = self.family
        if family.logit_scale != 1:
            found = found * family.logit_scale
        if family.softcap is not None:
            found = family.softcap * torch.tanh(found / family.softcap)
        return found


def resolve_folder(path: str) -> Path:
    """Returns the local folder of a model: a folder as given, or a hub id's snapshot.

    Raises:
        ValueError: If it is neither a folder nor to be had from the hub.
    """
    folder = MODELS_FOLDER / path if path in BUILT_IN_MODELS else Path(path)
    if len(folder.name) > _LONGEST_NAME:
        raise ValueError(f"model.path must be a folder or a hub id, got {path[:80]!r}…")
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
    config = read_object(file.read_bytes(), str(file))
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    missing = [name for name in (*names, "vocab_size") if name not in config]
    if missing:
        raise ValueError(
            f"model in {folder} must be Llama-like; its config.json lacks {', '.join(missing)}"
        )
    hidden, layers, heads, ffn, vocab = (config[name] for name in (*names, "vocab_size"))
    given = {"hidden": hidden, "layers": layers, "heads": heads, "ffn": ffn, "vocab": vocab}
    given["kv_heads"] = config.get("num_key_value_heads") or heads
    # whether both are whole numbers is checked with all others
    divides = isinstance(hidden, int) and isinstance(heads, int) and heads > 0
    given["head_dim"] = config.get("head_dim") or (hidden // heads if divides else 0)
    return build_value(Shapes, given, {}, str(file))


def load_backbone(folder: Path, precision: str = REFERENCE, processor: str = CPU) -> Backbone:
    """Returns the model of a folder, frozen and in evaluation mode.

    Args:
        folder: The model's folder.
        precision: ``reference`` (fp32) or ``fast`` (bf16), a key of
            `fleettune.backbone.processor.DTYPES`.
        processor: Where its weights go, one of `fleettune.backbone.processor.PROCESSORS`.

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
    return prepare_model(model, folder, read_shapes(folder))


def prepare_model(model: Any, folder: Path, shapes: Shapes) -> Backbone:  # noqa: ANN401 - transformers
    """Returns a loaded model as a backbone: frozen, in evaluation mode, fused matrices split.

    Raises:
        ValueError: If its layers are not Llama-like.
    """
    from transformers import GenerationConfig  # noqa: PLC0415 - seconds of import

    inner = getattr(model, "model", None)
    if not all(hasattr(inner, part) for part in ("layers", "rotary_emb", "norm", "embed_tokens")):
        raise ValueError(
            f"model in {folder} must have Llama-like layers (q, k, v, o, gate, up, down), "
            f"got {type(model).__name__}"
        )
    # what a folder says of sampling is no part of the model: every job says how it decodes
    model.generation_config = GenerationConfig()
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    split_fused(model, shapes)
    return Backbone(model, shapes)
