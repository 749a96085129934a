"""What the families of Llama-like models do differently around and inside their layers.

The layers themselves are transformers' own. What a causal language model does outside of them is
done here by hand, because a pass of many devices starts and ends in the middle of a model: the
scale of embeddings and logits, the soft cap of logits, which layers see a sliding window, and
which rotary positions a layer gets. `fleettune.cohort.model_check` compares the result with the
model's own forward pass before anything runs.
"""

# pyright: basic, reportCallIssue=false
# transformers' types are too loose for strict

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fleettune.shapes import Shapes

FULL, SLIDING = "full_attention", "sliding_attention"
KINDS = (FULL, SLIDING)
"""Kinds of attention that a layer may have; both look at earlier positions only."""

FUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "self_attn": ("qkv_proj", ("q_proj", "k_proj", "v_proj")),
    "mlp": ("gate_up_proj", ("gate_proj", "up_proj")),
}
"""Matrices that some families store as one: by parent, its name and its parts in order."""


@dataclass(frozen=True, slots=True)
class Family:
    """What one model does around its layers.

    Attributes:
        embedding_scale: Embeddings are multiplied by it before the first layer.
        logit_scale: Logits are multiplied by it.
        softcap: Logits become ``softcap * tanh(logits / softcap)``; None: they stay.
        kinds: Kind of attention of every layer.
        window: Positions that a sliding layer sees, its own included; None without such layers.
        rotary_by_kind: True if the rotary positions differ between the kinds.
        masks_itself: True if a layer without a mask looks at earlier positions only.
    """

    embedding_scale: float
    logit_scale: float
    softcap: float | None
    kinds: tuple[str, ...]
    window: int | None
    rotary_by_kind: bool
    masks_itself: bool


def family_of(model: Any, layers: int) -> Family:  # noqa: ANN401 - a transformers model
    """Returns what a model does around its layers, read from its configuration.

    Raises:
        ValueError: If a layer has a kind of attention that is not known here.
    """
    config = model.config
    window = getattr(config, "sliding_window", None)
    if not getattr(config, "use_sliding_window", True):
        window = None
    kinds = tuple(getattr(config, "layer_types", None) or ())
    kinds = kinds or (SLIDING if window else FULL,) * layers
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or len(kinds) != layers:
        raise ValueError(
            f"model.path: every layer must have attention of kind {' or '.join(KINDS)}, "
            f"got {', '.join(unknown) or f'{len(kinds)} kinds for {layers} layers'}"
        )
    rotary = inspect.signature(model.model.rotary_emb.forward).parameters
    return Family(
        embedding_scale=float(getattr(config, "embedding_multiplier", None) or 1.0),
        logit_scale=float(getattr(config, "logit_scale", None) or 1.0)
        / float(getattr(config, "logits_scaling", None) or 1.0),
        softcap=getattr(config, "final_logit_softcapping", None),
        kinds=kinds,
        window=window if SLIDING in kinds else None,
        rotary_by_kind="layer_type" in rotary,
        masks_itself=getattr(config, "_attn_implementation", "") == "sdpa",
    )


def layer_mask(
    family: Family, kind: str, positions: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """Returns what a layer of one kind adds to its scores; None where it needs nothing.

    Args:
        family: The model's family.
        kind: Full or sliding.
        positions: Position of every token, ``(rows or 1, tokens)``.
        mask: Where attention is allowed, ``(rows, 1, tokens, tokens)``; None: at earlier tokens.
        dtype: Precision of the hidden states.
    """
    tokens = positions.shape[1]
    slides = kind == SLIDING and family.window is not None and tokens > family.window
    if not slides and family.masks_itself:
        return mask
    allowed = mask
    if allowed is None:
        allowed = torch.ones(tokens, tokens, dtype=torch.bool, device=positions.device).tril()
        allowed = allowed[None, None]
    if slides and family.window is not None:
        behind = positions[:, None, :, None] - positions[:, None, None, :]
        allowed = allowed & (behind < family.window)
    return torch.zeros(allowed.shape, dtype=dtype, device=positions.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )


class Split(nn.Module):
    """Stands for a fused matrix whose parts are modules of their own beside it."""

    def __init__(self, owner: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        # a list, because a module in an attribute would be registered as a child: a circle
        self.owner = [owner]
        self.names = names

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs of all parts side by side, ``(..., sum of n_out)``."""
        return torch.cat([getattr(self.owner[0], name)(x) for name in self.names], -1)


def split_fused(model: Any, shapes: Shapes) -> None:  # noqa: ANN401 - a transformers model
    """Gives every part of a fused matrix a module of its own, in place.

    Weights are views of the fused ones. `fuse_split` undoes it.
    """
    widths = fused_widths(shapes)
    for owner, fused, names in _fused_places(model):
        whole = getattr(owner, fused)
        if not isinstance(whole, nn.Linear) or whole.out_features != sum(widths[fused]):
            continue
        weights = whole.weight.detach().split(widths[fused])
        biases = [None] * len(names)
        if whole.bias is not None:
            biases = list(whole.bias.detach().split(widths[fused]))
        for name, weight, bias in zip(names, weights, biases, strict=True):
            setattr(owner, name, _linear(weight, bias))
        setattr(owner, fused, Split(owner, names))


def fuse_split(model: Any) -> None:  # noqa: ANN401 - a transformers model
    """Puts the parts of every split matrix together again, in place, as the family stores them."""
    for owner, fused, names in _fused_places(model):
        if not isinstance(getattr(owner, fused), Split):
            continue
        parts = [getattr(owner, name) for name in names]
        biases = [part.bias.detach() for part in parts if part.bias is not None]
        weight = torch.cat([part.weight.detach() for part in parts])
        setattr(owner, fused, _linear(weight, torch.cat(biases) if biases else None))
        for name in names:
            delattr(owner, name)


def fused_widths(shapes: Shapes) -> dict[str, list[int]]:
    """Returns the outputs of every part of a fused matrix, by the fused matrix's name."""
    sizes = shapes.matrices()
    return {
        fused: [sizes[part.removesuffix("_proj")][1] for part in parts]
        for fused, parts in FUSED.values()
    }


def _fused_places(model: Any) -> list[tuple[Any, str, tuple[str, ...]]]:  # noqa: ANN401 - as above
    return [
        (owner, fused, names)
        for layer in model.model.layers
        for parent, (fused, names) in FUSED.items()
        if hasattr(owner := getattr(layer, parent, None), fused)
    ]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made
