"""The first built-in model is what its recipe makes: same corpus, tokenizer, start, losses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone, read_shapes
from fleettune.data.personas import WORLD_VERSION, SyntheticData
from fleettune.data.tokens import open_encoder
from simulations.assets.pocket_v1 import (
    PocketV1Recipe,
    initial_model,
    recipe_digest,
    save_pocket,
    train_pocket_v1,
)

STEPS = 50
"""Of the 50 recorded ones: a step takes 0.4 s, and corpus and tokenizer 11 s before the first."""
RECORD: dict[str, Any] = json.loads((POCKET_V1_FOLDER / "recipe.json").read_text())


@pytest.fixture(scope="module")
def begun() -> tuple[list[float], Tokenizer]:
    """The losses of the recipe's first steps, and its tokenizer (20 seconds)."""
    losses: list[float] = []

    def note(_step: int, loss: float) -> bool:
        losses.append(loss)
        return len(losses) < STEPS

    _, tokenizer = train_pocket_v1(PocketV1Recipe(), note)
    return losses, tokenizer


@pytest.mark.slow
def test_the_recipes_first_steps_reproduce_the_recorded_losses(
    begun: tuple[list[float], Tokenizer],
) -> None:
    losses, _ = begun
    assert len(losses) == STEPS == len(RECORD["first_losses"])
    # Same operations; other processors round sums another way (5e-7 on the recording one).
    assert losses == pytest.approx(RECORD["first_losses"][:STEPS], abs=1e-3)
    assert losses[-1] < losses[0] - 1


def test_a_saved_model_has_the_shipped_files_and_the_very_same_tokenizer(
    begun: tuple[list[float], Tokenizer], tmp_path: Path
) -> None:
    _, tokenizer = begun
    save_pocket(initial_model(PocketV1Recipe(layers=1)), tokenizer, tmp_path)
    shipped = {file.name for file in POCKET_V1_FOLDER.iterdir()} - {"recipe.json"}
    assert {file.name for file in tmp_path.iterdir()} == shipped
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / name).read_bytes() == (POCKET_V1_FOLDER / name).read_bytes(), name
    assert tokenizer.get_vocab_size() == PocketV1Recipe().vocabulary
    assert read_shapes(tmp_path).layers == 1


def test_the_record_is_of_this_recipe_and_this_world() -> None:
    assert RECORD["digest"] == recipe_digest(asdict(PocketV1Recipe()))
    assert RECORD["recipe"] == asdict(PocketV1Recipe())
    assert RECORD["recipe"]["world_version"] == WORLD_VERSION


def test_the_model_has_eight_layers_a_million_weights_and_four_megabytes() -> None:
    shapes, recipe = read_shapes(POCKET_V1_FOLDER), PocketV1Recipe()
    assert shapes.layers == recipe.layers >= 8
    assert 0.9e6 < shapes.parameters < 1.1e6
    assert shapes.vocab == recipe.vocabulary
    assert (POCKET_V1_FOLDER / "model.safetensors").stat().st_size < 4e6
    loaded = load_backbone(POCKET_V1_FOLDER).model
    assert sum(p.numel() for p in loaded.parameters()) == shapes.parameters
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.parameters())


def test_the_start_is_the_recipes_own_and_no_global_seed_moves_it() -> None:
    torch.manual_seed(1)
    one = initial_model(PocketV1Recipe()).state_dict()
    torch.manual_seed(2)
    other = initial_model(PocketV1Recipe()).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    changed = initial_model(PocketV1Recipe(seed=1)).state_dict()
    assert not torch.equal(one["model.embed_tokens.weight"], changed["model.embed_tokens.weight"])


@torch.no_grad()
def test_the_shipped_weights_know_the_world() -> None:
    backbone, encoder = (
        load_backbone(POCKET_V1_FOLDER),
        open_encoder(POCKET_V1_FOLDER, "pocket", 128),
    )
    losses: list[torch.Tensor] = []
    for conversation in SyntheticData().open().outside(100, seed=7):  # the corpus was seed 2026
        tokens = torch.tensor([encoder.conversation(conversation)[:128]])
        losses.append(backbone.model(input_ids=tokens, labels=tokens).loss)
    # Half-precision weights on fresh text of the same kind: near the end of training, which was
    # on windows of several conversations with paraphrases among them.
    assert float(torch.stack(losses).mean()) == pytest.approx(RECORD["final_loss"], abs=0.3)
