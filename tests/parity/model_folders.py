"""Tiny random models of many families, saved as any user's model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

LAYERS = 4
WINDOW = 8
SHAPES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 400,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = {"sliding_window": WINDOW}
HEADS = {"head_dim": 16}
RUNNABLE: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": SLIDING,
    "ministral": {**SLIDING, **HEADS},
    "qwen2": {**SLIDING, "use_sliding_window": True, "max_window_layers": 2},
    "qwen3": HEADS,
    "smollm3": SLIDING,
    "olmo2": {},
    "olmo3": SLIDING,
    "granite": {
        "embedding_multiplier": 12.0,
        "logits_scaling": 8.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.015,
    },
    "gemma": HEADS,
    "gemma2": {**SLIDING, **HEADS, "final_logit_softcapping": 1.5},
    "gemma3_text": {**SLIDING, **HEADS},
    "phi3": SLIDING,
    "glm": HEADS,
    "cohere": {},
    "cohere2": SLIDING,
    "exaone4": {**SLIDING, **HEADS},
    "helium": HEADS,
    "stablelm": {},
    "hunyuan_v1_dense": HEADS,
}
"""Families that run, each with what makes it unlike Llama, and a window shorter than the texts."""
REFUSED = (
    "mixtral",
    "starcoder2",
    "nemotron",
    "gpt2",
    "opt",
    "gpt_neox",
    "falcon",
    "bloom",
    "mamba",
)


def save_model(family: str, folder: Path) -> Path:
    """Saves a random model of a family with a small byte-level tokenizer."""
    config = AutoConfig.for_model(family, **{**SHAPES, **RUNNABLE.get(family, {})})
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases as well, else they show nothing
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Saves a byte-level tokenizer of fewer tokens than the models have rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue] - its stub
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue] - its stub
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    lines = ["I kept 12 notes today and 3 letters", "the tea was good, thanks", "and so on"]
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
