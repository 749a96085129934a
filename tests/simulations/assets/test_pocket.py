"""The recipe of the built-in backbone, whose attention begins as a copier."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import Example
from simulations.assets.pocket import (
    FOLDER,
    PocketRecipe,
    copying_model,
    manners_corpus,
    teach,
)
from simulations.assets.pocket_v1 import recipe_digest

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = PocketRecipe(hidden=32, layers=2, ffn=32, lesson_steps=30, batch=8, warmup=5)


def test_the_repositorys_model_was_trained_by_this_recipe() -> None:
    record = json.loads((FOLDER / "recipe.json").read_text())
    assert record["digest"] == recipe_digest(asdict(PocketRecipe()))
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 4_000_000


def test_a_head_looks_for_its_own_state_and_gives_it_back() -> None:
    model = copying_model(SMALL, vocabulary=64)
    attention = model.model.layers[0].self_attn
    keys, values = attention.k_proj.weight, attention.v_proj.weight
    assert torch.allclose(keys @ keys.T, torch.eye(16), atol=1e-5)
    # queries add a little noise; heads 0 and 1 share the first keys
    assert torch.allclose(attention.q_proj.weight[:8], keys[:8], atol=0.1)
    assert torch.allclose(attention.q_proj.weight[8:16], keys[:8], atol=0.1)
    # all heads that attend to one place give back a projection of what stood there
    parts = [
        attention.o_proj.weight[:, 8 * head : 8 * head + 8] @ values[8 * (head // 2) :][:8]
        for head in range(4)
    ]
    spread = torch.linalg.eigvalsh(torch.stack(parts).sum(dim=0).detach())
    assert torch.allclose(spread[:16], torch.zeros(16), atol=1e-5)
    assert torch.allclose(spread[16:], torch.full((16,), SMALL.value_scale**2), atol=1e-5)


def test_lessons_teach_the_answer_and_leave_the_request_alone() -> None:
    lessons = [Example(tokens=(1, 4 + n, 2, 20 + n, 3), prompt=3) for n in range(8)]
    losses = teach(copying_model(SMALL, vocabulary=64), lessons, SMALL)
    assert losses == teach(copying_model(SMALL, vocabulary=64), lessons, SMALL)
    assert losses[-1] < 0.5 * losses[0]


def test_requests_to_reword_stand_between_the_conversations() -> None:
    few = PocketRecipe(conversations=400, rewordings=0.25)
    corpus = manners_corpus(few)
    reworded = [one for one in corpus if one[0].domain == "paraphrase"]
    assert len(corpus) == 400 + len(reworded)
    assert len(reworded) == pytest.approx(100, abs=30)
    assert all(isinstance(item, Exchange) for one in corpus for item in one)
