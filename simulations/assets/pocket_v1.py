"""Trains the backbone of the first built-in world, of about 1M parameters and eight layers.

The corpus is generated. ``python -m simulations.assets.pocket_v1`` writes tokenizer, fp16 weights,
and ``recipe.json`` with the recipe's digest and its loss curve. The built-in model of today is
trained by `simulations.assets.pocket`, which uses the parts that stand here.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.data.exchanges import Exchange
from fleettune.data.personas import WORLD_VERSION, SyntheticData
from fleettune.data.tokens import POCKET
from fleettune.data.vendor_text import CorpusMix, mix_corpus
from fleettune.seeds import Purpose, stream
from strategies.releases.training import PretrainPlan, pretrain

log = logging.getLogger(__name__)

FOLDER = POCKET_V1_FOLDER
SPECIAL = ("<pad>", POCKET.before, POCKET.between, POCKET.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class PocketV1Recipe:
    """Everything that decides the weights."""

    world_version: int = WORLD_VERSION
    seed: int = 2026
    vocabulary: int = 1024
    hidden: int = 96
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 256
    positions: int = 256
    conversations: int = 40_000
    paraphrases: float = 0.08
    steps: int = 1600
    batch: int = 32
    window: int = 128
    learning_rate: float = 3e-3
    warmup: int = 50


def recipe_digest(values: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a recipe's values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def join_conversation(conversation: Iterable[Exchange]) -> str:
    """Returns a conversation in the built-in template."""
    return "".join(
        POCKET.before + item.question + POCKET.between + item.response + POCKET.after
        for item in conversation
    )


def pocket_texts(recipe: PocketV1Recipe) -> Iterator[str]:
    """Yields the corpus, one conversation at a time."""
    mix = CorpusMix(conversations=recipe.conversations, paraphrases=recipe.paraphrases)
    outside = SyntheticData().open().outside(mix.conversations, recipe.seed)
    for conversation in mix_corpus(outside, mix, recipe.seed):
        yield join_conversation(conversation)


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """Returns a byte-level BPE tokenizer learned from the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def initial_model(recipe: PocketV1Recipe) -> Any:  # noqa: ANN401 - transformers' own types are too loose
    """Returns the untrained model, its weights drawn from the recipe's own stream."""
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.ffn,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=3,
    )
    model = LlamaForCausalLM(config)
    rng = stream(recipe.seed, Purpose.POCKET)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                drawn = rng.normal(0.0, 0.02, size=tuple(parameter.shape))
                parameter.copy_(torch.as_tensor(drawn))
    return model


def train_pocket_v1(
    recipe: PocketV1Recipe, on_step: Callable[[int, float], bool]
) -> tuple[Any, Tokenizer]:
    """Returns the trained model and its tokenizer."""
    texts = list(pocket_texts(recipe))
    tokenizer = train_tokenizer(texts[:10_000], recipe.vocabulary)
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    text = torch.tensor([token for item in encoded for token in item.ids])
    model = initial_model(recipe)
    plan = PretrainPlan(
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        batch=recipe.batch,
        window=recipe.window,
        warmup=recipe.warmup,
    )
    model.train()
    pretrain(model, model.parameters(), text, plan, recipe.seed, on_step)
    return model, tokenizer


def save_pocket(model: Any, tokenizer: Tokenizer, folder: Path) -> None:  # noqa: ANN401
    """Writes weights (fp16), configuration and tokenizer as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(folder)
    fast: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], bos_token=SPECIAL[1], eos_token=SPECIAL[3]
    )
    fast.save_pretrained(folder)


def write_record(values: Mapping[str, Any], losses: Sequence[float], folder: Path) -> None:
    """Writes ``recipe.json``: a recipe's values and digest, its first losses and its last."""
    final = round(sum(losses[-100:]) / 100, 4)
    record = {
        "recipe": dict(values),
        "digest": recipe_digest(values),
        "first_losses": [round(loss, 6) for loss in losses[:50]],
        "final_loss": final,
    }
    (folder / "recipe.json").write_text(json.dumps(record, indent=1) + "\n")
    log.info("wrote %s, final loss %.4f", folder, final)


def main() -> None:
    """Trains the pocket model and writes it into the repository's folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    recipe = PocketV1Recipe()
    losses: list[float] = []

    def note(step: int, loss: float) -> bool:
        losses.append(loss)
        if step % 50 == 0:
            log.info("step %d of %d, loss %.4f", step, recipe.steps, loss)
        return True

    model, tokenizer = train_pocket_v1(recipe, note)
    save_pocket(model, tokenizer, FOLDER)
    write_record(asdict(recipe), losses, FOLDER)


if __name__ == "__main__":
    main()
