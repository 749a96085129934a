"""Checks a user's model folder before a run: does our pass compute what transformers computes?

The folder is read as a run reads it, but only its first layers are loaded, so that a large model
is checked in seconds. Every rule that is broken ends in one sentence.
"""

# pyright: basic, reportCallIssue=false
# transformers' types are too loose for strict

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fleettune.backbone.causal_lm import Backbone, prepare_model, read_shapes
from fleettune.backbone.model_family import FUSED
from fleettune.data.tokens import TEMPLATES, Encoder, open_encoder
from fleettune.kernels.training_pass import lower_layers
from fleettune.releases.model_files import open_weights
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site

CHECKED_LAYERS = 8
"""Layers that are loaded: more than any family's pattern of unlike layers is long."""
TOLERANCE = 1e-4
"""Largest difference of logits, as a share of the largest logit or of 1 where that is less."""
LONGEST = 512
"""Longest sequence that is compared, in tokens."""
ORDINARY = (
    "I kept 12 notes & 3 letters <3 :)",
    "Yes - no? (50% of 7,00 EUR) [see #4]\nNext line; C'est déjà l'été.",
    "日本語と émoji 🙂 = x_1 + y*2/3 ~ {a} | b",
)
"""Texts as users write them, in which nothing may read as the end of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedModel:
    """What a check found of a model that may run.

    Attributes:
        family: The model's class in transformers.
        shapes: Its shapes.
        layers: Layers that were compared.
        tokens: Length of the compared sequences.
        difference: Largest difference of logits, as a share of the largest.
    """

    family: str
    shapes: Shapes
    layers: int
    tokens: int
    difference: float


@lru_cache(maxsize=32)
def check_model(folder: Path, template: str, max_tokens: int) -> CheckedModel:
    """Compares our pass over a model with its own forward pass, and its tokenizer with both.

    Args:
        folder: The model's folder.
        template: Text around question and answer, a key of `fleettune.data.tokens.TEMPLATES`.
        max_tokens: Longest example of the run, in tokens.

    Raises:
        ValueError: If the folder lacks something, if our pass computes anything else than
            transformers does, or if the tokenizer does not fit model or template.
    """
    shapes = read_shapes(folder)
    _check_matrices(folder, shapes)
    check_tokenizer(open_encoder(folder, template, max_tokens), folder, shapes)
    model = _first_layers(folder, shapes)
    tokens = min(max_tokens, LONGEST)
    rng = stream(0, Purpose.MODEL_CHECK, shapes.vocab, tokens)
    rows = torch.from_numpy(rng.integers(0, shapes.vocab, size=(2, tokens)))
    with torch.no_grad():
        wanted = model(input_ids=rows, use_cache=False).logits.float()
        backbone = prepare_model(model, folder, replace(shapes, layers=len(model.model.layers)))
        layers = backbone.shapes.layers
        _check_widths(backbone, folder)
        found = _ours(backbone, rows, layers)
        difference = _difference(found, wanted)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"model in {folder} ({type(model).__name__}) cannot run here: over {tokens} tokens "
                f"our pass differs from transformers' by {difference:.2g} of the largest logit, "
                f"more than {TOLERANCE:g}; choose a model of another family"
            )
        rows[:, -1] = (rows[:, -1] + 1) % shapes.vocab
        moved = _difference(_ours(backbone, rows, layers)[:, :-1], found[:, :-1])
    if not moved <= TOLERANCE:
        raise ValueError(
            f"model in {folder} ({type(model).__name__}) cannot run here: its last token changes "
            f"earlier logits by {moved:.2g} of the largest; it is no causal model"
        )
    return CheckedModel(
        family=type(model).__name__,
        shapes=shapes,
        layers=layers,
        tokens=tokens,
        difference=difference,
    )


def check_tokenizer(encoder: Encoder, folder: Path, shapes: Shapes) -> None:
    """Checks that a tokenizer fits a model and a template.

    Raises:
        ValueError: If a token has no row in the embedding, or if the token that ends an answer
            stands in ordinary text as well.
    """
    largest = max(encoder.tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= shapes.vocab:
        raise ValueError(
            f"tokenizer in {folder} has ids up to {largest}, the model has embeddings for "
            f"{shapes.vocab} tokens; resize its embedding (resize_token_embeddings) and save it"
        )
    stop = encoder.stop
    for text in ORDINARY:
        if stop in encoder.ids(text):
            raise ValueError(
                f"model.template does not fit the tokenizer in {folder}: an answer would end with "
                f"the token {encoder.tokenizer.id_to_token(stop)!r}, which stands in ordinary text "
                f"such as {text!r} too; choose the template of its family: {', '.join(TEMPLATES)}"
            )


def _ours(backbone: Backbone, rows: Tensor, layers: int) -> Tensor:
    """Returns the logits of our pass: the layers below the top as a tune runs them."""
    below = lower_layers(backbone, backbone.embed(rows), layers - 1)
    return backbone.logits(backbone.layers(below, layers - 1, layers))


def _difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))


def _check_widths(backbone: Backbone, folder: Path) -> None:
    """Checks that every matrix has the width that the configuration says.

    Raises:
        ValueError: If one has not; what a tune costs would be wrong.
    """
    for module, wanted in backbone.shapes.matrices().items():
        linear = backbone.linear(Site(0, module))
        if (linear.in_features, linear.out_features) != wanted:
            raise ValueError(
                f"model in {folder}: {module}_proj must have {wanted[0]} inputs and {wanted[1]} "
                f"outputs by its config.json, got {linear.in_features} and {linear.out_features}"
            )


def _first_layers(folder: Path, shapes: Shapes) -> Any:  # noqa: ANN401 - a transformers model
    """Returns the model with its first layers only, in single precision.

    Raises:
        ValueError: If transformers cannot load it, or lacks weights for it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - seconds of import

    layers = min(shapes.layers, CHECKED_LAYERS)
    given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in given:
        raise ValueError(
            f"model in {folder} is quantised (quantization_config in its config.json); give the "
            "model in half or single precision, as it was before"
        )
    # lists with one entry per layer are cut as the layers are
    cut = {
        k: v[:layers] for k, v in given.items() if isinstance(v, list) and len(v) == shapes.layers
    }
    try:
        config = AutoConfig.from_pretrained(folder, **cut, num_hidden_layers=layers)
        both: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise ValueError(
            f"model in {folder} cannot be loaded by transformers: {_one_line(error)}"
        ) from error
    model, loaded = both
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise ValueError(
            f"model folder {folder} lacks {len(missing)} tensors of its own model, such as "
            f"{missing[0]}; save the whole model there"
        )
    return model.eval()


def _check_matrices(folder: Path, shapes: Shapes) -> None:
    """Checks by name that every layer has all seven matrices, apart or fused.

    Raises:
        ValueError: If one is missing, or no safetensors file can be read.
    """
    with open_weights(folder) as tensors:
        names = frozenset(tensors.keys())
    for layer in range(shapes.layers):
        for parent, modules in (("self_attn", MODULES[:4]), ("mlp", MODULES[4:])):
            fused, parts = FUSED[parent]
            at = f"model.layers.{layer}.{parent}."
            has = f"{at}{fused}.weight" in names
            missing = [
                module
                for module in modules
                if f"{at}{module}_proj.weight" not in names
                and not (has and f"{module}_proj" in parts)
            ]
            if missing:
                kind = json.loads((folder / "config.json").read_text()).get("model_type")
                raise ValueError(
                    f"model in {folder} ({kind}) must have Llama-like layers: layer {layer} lacks "
                    f"{', '.join(f'{module}_proj' for module in missing)}; choose a model whose "
                    "layers have q, k, v, o, gate, up and down"
                )


def _one_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
