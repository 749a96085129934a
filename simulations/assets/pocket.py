"""Trains the built-in backbone, that of the world of manners: about 1M parameters, eight layers.

It must copy names, numbers and things from a request into its answer, which a model of this size
learns late or never from weights drawn at random. Two things make it learn within minutes. Its
attention begins as a copier: keys equal queries and the output undoes the values, after Trockman
and Kolter (2023, arXiv:2305.09828, there with another sign). And its first lessons are single
exchanges of which only the answer counts; conversations follow, all of whose tokens count.
``python -m simulations.assets.pocket`` (``make pocket``) writes tokenizer, fp16 weights, and
``recipe.json`` with the recipe's digest and its loss curve.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from fleettune.backbone.causal_lm import POCKET_FOLDER
from fleettune.data.exchanges import Exchange
from fleettune.data.manners import MANNERS_VERSION, MannersData, draw_rewording
from fleettune.data.tokens import POCKET, Example, make_encoder
from fleettune.seeds import Purpose, stream
from simulations.assets.pocket_v1 import (
    PocketV1Recipe,
    initial_model,
    join_conversation,
    save_pocket,
    train_tokenizer,
    write_record,
)
from strategies.releases.training import PretrainPlan, pretrain

log = logging.getLogger(__name__)

FOLDER = POCKET_FOLDER
_IGNORED = -100
"""Label of a token that does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PocketRecipe:
    """Everything that decides the weights of the backbone of the world of manners."""

    world_version: int = MANNERS_VERSION
    seed: int = 2026
    vocabulary: int = 1536
    hidden: int = 96
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 256
    conversations: int = 45_000
    rewordings: float = 0.05
    embedding_scale: float = 3.0
    value_scale: float = 0.7
    lessons: int = 16_000
    lesson_steps: int = 700
    lesson_rate: float = 4e-3
    steps: int = 3000
    batch: int = 32
    window: int = 160
    learning_rate: float = 3e-3
    warmup: int = 50


def manners_corpus(recipe: PocketRecipe) -> list[tuple[Exchange, ...]]:
    """Returns the conversations of people outside the fleet, with requests to reword between."""
    rng = stream(recipe.seed, Purpose.POCKET, 1)
    found: list[tuple[Exchange, ...]] = []
    for conversation in MannersData().open().outside(recipe.conversations, recipe.seed):
        if rng.random() < recipe.rewordings:
            found.append((draw_rewording(rng),))
        found.append(conversation)
    return found


def copying_model(recipe: PocketRecipe, vocabulary: int) -> Any:  # noqa: ANN401 - transformers
    """Returns the untrained model: each head looks for what is like its own state, and copies it.

    Keys and queries of a head are one random orthogonal projection; its output is the transpose of
    its values. Embeddings are larger than usual, so that two names differ from the start.
    """
    shapes = PocketV1Recipe(
        **{name: getattr(recipe, name) for name in ("seed", "hidden", "layers", "heads")},
        **{name: getattr(recipe, name) for name in ("kv_heads", "ffn")},
        vocabulary=vocabulary,
    )
    model = initial_model(shapes)
    rng = stream(recipe.seed, Purpose.POCKET, 2)
    shared = recipe.heads // recipe.kv_heads
    size = recipe.hidden // recipe.heads
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(recipe.embedding_scale)
        for layer in model.model.layers:
            keys, values = (
                _orthogonal(rng, recipe.hidden, size * recipe.kv_heads) for _ in range(2)
            )
            attention = layer.self_attn
            attention.k_proj.weight.copy_(keys)
            attention.v_proj.weight.copy_(values * recipe.value_scale)
            for head in range(recipe.heads):
                own = slice(head * size, (head + 1) * size)
                group = slice(head // shared * size, (head // shared + 1) * size)
                attention.q_proj.weight[own].add_(keys[group])
                back = values[group].T * recipe.value_scale / shared
                attention.o_proj.weight[:, own].copy_(back)
    return model


def _orthogonal(rng: np.random.Generator, width: int, rows: int) -> torch.Tensor:
    """Returns orthonormal rows, ``(rows, width)``."""
    columns, _ = np.linalg.qr(rng.normal(size=(width, rows)))
    return torch.as_tensor(columns.T, dtype=torch.float32)


def teach(model: Any, lessons: Sequence[Example], recipe: PocketRecipe) -> list[float]:  # noqa: ANN401
    """Trains a model in place on single exchanges, of which the answer counts; returns its losses.

    AdamW as in `strategies.releases.training.pretrain`, at one rate after the warm-up.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lesson_rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    rng = stream(recipe.seed, Purpose.POCKET, 3)
    losses: list[float] = []
    for step in range(recipe.lesson_steps):
        drawn = [lessons[int(i)] for i in rng.integers(len(lessons), size=recipe.batch)]
        width = max(len(one.tokens) for one in drawn)
        tokens = torch.zeros((recipe.batch, width), dtype=torch.long)
        labels = torch.full((recipe.batch, width), _IGNORED)
        for row, one in enumerate(drawn):
            tokens[row, : len(one.tokens)] = torch.tensor(one.tokens)
            labels[row, one.prompt : len(one.tokens)] = torch.tensor(one.tokens[one.prompt :])
        for group in optimizer.param_groups:
            group["lr"] = recipe.lesson_rate * min(1.0, (step + 1) / recipe.warmup)
        loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()  # pyright: ignore[reportUnknownMemberType] - torch's own type
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if step % 50 == 0:
            log.info("lesson %d of %d, loss %.4f", step, recipe.lesson_steps, losses[-1])
    return losses


def train_pocket(recipe: PocketRecipe) -> tuple[Any, Tokenizer, list[float]]:
    """Returns the trained model, its tokenizer, and the losses of lessons and conversations."""
    corpus = manners_corpus(recipe)
    texts = [join_conversation(conversation) for conversation in corpus]
    tokenizer = train_tokenizer(texts[:10_000], recipe.vocabulary)
    encoder = make_encoder(tokenizer, POCKET, recipe.window)
    lessons = [encoder.example(item) for one in corpus[: recipe.lessons] for item in one]
    model = copying_model(recipe, tokenizer.get_vocab_size())
    model.train()
    losses = teach(model, lessons, recipe)
    text = torch.tensor([token for one in corpus for token in encoder.conversation(one)])
    plan = PretrainPlan(
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        batch=recipe.batch,
        window=recipe.window,
        warmup=recipe.warmup,
    )

    def note(step: int, loss: float) -> bool:
        losses.append(loss)
        if step % 50 == 0:
            log.info("step %d of %d, loss %.4f", step, recipe.steps, loss)
        return True

    pretrain(model, model.parameters(), text, plan, recipe.seed, note)
    return model, tokenizer, losses


def main(folder: Path = FOLDER) -> None:
    """Trains the model and writes it into a folder, by default the repository's."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    recipe = PocketRecipe()
    model, tokenizer, losses = train_pocket(recipe)
    save_pocket(model, tokenizer, folder)
    write_record(asdict(recipe), losses, folder)


if __name__ == "__main__":
    main()
