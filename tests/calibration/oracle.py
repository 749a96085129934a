"""Oracles of work and memory: what torch counts, and what automatic differentiation keeps.

Our rules see shapes only; here a Llama with PEFT's adapters is built from the same shapes, passes
are run, and `torch.utils.flop_counter` and the saved tensors are read. Attention is eager for FLOP:
on a CPU the counter leaves fused attention out.
"""

# pyright: basic, reportCallIssue=false
# transformers' and PEFT's types are too loose for strict

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from fleettune.shapes import MODULES, Groups, Ranks, Shapes, Site

LENGTHS = (12, 7)
"""Tokens of the sequences of a counted batch."""
HEAD_TOKENS = (5, 7)
"""Tokens of each sequence on which the head runs."""


Attention = Literal["fused", "eager"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Adapters to be counted: ranks per site, and the groups that share a pair of factors."""

    ranks: Ranks
    shared: Groups = ()


def placements(layers: int) -> Mapping[str, Placed]:
    """Returns adapters of many kinds for a decoder of at least two layers, by name."""
    every, top, below = range(layers), layers - 1, layers - 2
    last = range(top, layers)
    queries, values = _at(every, ("q",)), _at(every, ("v",))
    gated = _at(last, ("gate", "up"), 3)
    plain: dict[str, Ranks] = {
        "all sites": _at(every, MODULES),
        "top two layers": _at(range(below, layers), MODULES),
        "top layer": _at(last, MODULES),
        "down of the last layer": _at(last, ("down",)),
        "up of the last layer": _at(last, ("up",)),
        "gate of the layer below": {Site(below, "gate"): 4},
        "q of layer 0": _at(range(1), ("q",)),
        "k of the layer below": {Site(below, "k"): 4},
        "v of the last layer": _at(last, ("v",)),
        "v and o everywhere": _at(every, ("v", "o")),
        "o below, down above": {Site(below, "o"): 2, Site(top, "down"): 6},
        "k and v of layer 0, gate above": {
            Site(0, "k"): 3,
            Site(0, "v"): 5,
            Site(top, "gate"): 2,
        },
        "q and up, unlike ranks": {Site(below, "q"): 1, Site(below, "up"): 7, Site(top, "q"): 3},
    }
    return {name: Placed(ranks=ranks) for name, ranks in plain.items()} | {
        "q shared by all layers": Placed(ranks=queries, shared=(frozenset(queries),)),
        "gate and up share, top layer": Placed(ranks=gated, shared=(frozenset(gated),)),
        "q shared, v shared, o alone": Placed(
            ranks=queries | values | _at(last, ("o",), 2),
            shared=(frozenset(queries), frozenset(values)),
        ),
    }


def adapted_model(shapes: Shapes, placed: Placed, attention: Attention) -> nn.Module:
    """Returns a randomly initialised Llama with the adapters in place, shared ones tied."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shapes.hidden,
        num_hidden_layers=shapes.layers,
        num_attention_heads=shapes.heads,
        num_key_value_heads=shapes.kv_heads,
        head_dim=shapes.head_dim,
        intermediate_size=shapes.ffn,
        vocab_size=shapes.vocab,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("sdpa" if attention == "fused" else attention)
    pattern = {f".*{_name(s).replace('.', '[.]')}": rank for s, rank in placed.ranks.items()}
    lora = LoraConfig(r=1, target_modules="|".join(pattern), rank_pattern=pattern, lora_dropout=0.0)
    adapted = get_peft_model(model, lora)
    layers: dict[str, nn.Module] = dict(adapted.named_modules())
    for group in placed.shared:
        first, *others = (layers[f"base_model.model.model.{_name(site)}"] for site in sorted(group))
        for other in others:
            for factor in ("lora_A", "lora_B"):
                weight = first.get_submodule(f"{factor}.default").weight
                other.get_submodule(f"{factor}.default").weight = weight
    return adapted


def loss_of(model: nn.Module, length: int, head_tokens: int, vocab: int) -> torch.Tensor:
    """Returns the loss on the last tokens of one random sequence."""
    tokens = torch.randint(0, vocab, (1, length))
    logits = model(input_ids=tokens, logits_to_keep=head_tokens).logits
    return nn.functional.cross_entropy(logits[0], tokens[0, -head_tokens:])


def counted_flop(shapes: Shapes, placed: Placed) -> tuple[int, int]:
    """Returns the FLOP of forward and backward that torch counts over `LENGTHS`."""
    model = adapted_model(shapes, placed, "eager")
    counted = [0, 0]
    for length, head_tokens in zip(LENGTHS, HEAD_TOKENS, strict=True):
        with FlopCounterMode(display=False) as forward:
            loss = loss_of(model, length, head_tokens, shapes.vocab)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
        counted[0] += forward.get_total_flops()
        counted[1] += backward.get_total_flops()
    return counted[0], counted[1]


def kept_elements(shapes: Shapes, placed: Placed, attention: Attention, length: int) -> float:
    """Returns the elements that torch keeps for backward of one sequence, weights excepted."""
    model = adapted_model(shapes, placed, attention)
    with _saved_storages(model) as found:
        loss = loss_of(model, length, length, shapes.vocab)
    kept = sum(found.values()) / 4  # float32
    loss.backward()
    return kept


@contextmanager
def _saved_storages(model: nn.Module) -> Iterator[dict[int, int]]:
    """Yields address -> bytes of every storage kept for backward that is not a weight."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


def _at(layers: range, modules: Sequence[str], rank: int = 4) -> dict[Site, int]:
    return {Site(layer, module): rank for layer in layers for module in modules}


def _name(site: Site) -> str:
    """Returns the name of a site's matrix below the decoder."""
    block = "self_attn" if site.module in "qkvo" else "mlp"
    return f"layers.{site.layer}.{block}.{site.module}_proj"
