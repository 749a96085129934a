"""Embeddings: the entropy of hidden norms by hand, and texts that share a pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone
from fleettune.cohort.execute import execute
from fleettune.cohort.score import embed_cohort, norm_entropy
from fleettune.jobs.jobs import EmbedJob, EmbedResult, embedding_layers

TEXTS = ((1, 40, 41, 42, 43, 2), (1, 50, 60), (7,), (1, 9))


def test_entropy_of_norms_by_hand() -> None:
    # the first token is left out; then 1, 1, 2 of which p = 1/4, 1/4, 1/2; the second row's 60 is
    # more than ten times the median of 1, 1, 60 and left out; the third has no token but the first
    norms = torch.tensor([[9.0, 1, 1, 2, 5], [9.0, 1, 1, 60, 0], [9.0, 0, 0, 0, 0]])
    real = torch.tensor([[True] * 4 + [False], [True] * 4 + [False], [True] + [False] * 4])
    entropy, tokens = norm_entropy(norms, real)
    assert tokens.tolist() == [3, 2, 0]
    assert entropy.tolist() == pytest.approx([1.5 * math.log(2), math.log(2), 0.0])


@torch.no_grad()
def test_entropy_and_mean_are_those_of_the_models_own_hidden_states() -> None:
    backbone = load_backbone(POCKET_V1_FOLDER)
    (found,) = embed_cohort(backbone, [EmbedJob(release="", patch=None, prompts=TEXTS, skip=1)])
    middle = embedding_layers(backbone.shapes)
    for place, text in enumerate(TEXTS):
        out = backbone.model(input_ids=torch.tensor([text]), output_hidden_states=True)
        states = out.hidden_states[middle][0].numpy()
        # a text of one token keeps it, as there is no other
        mean = states[min(1, len(text) - 1) :].mean(0)
        # entries of a unit vector, fp32
        np.testing.assert_allclose(found.vectors[place], mean / np.linalg.norm(mean), atol=1e-5)
        norms = np.linalg.norm(states[1:], axis=1)
        norms = norms[norms <= 10 * np.sort(norms)[(len(norms) - 1) // 2]] if len(norms) else norms
        share = norms / norms.sum()
        assert found.tokens[place] == len(norms)
        assert found.entropy[place] == pytest.approx(-(share * np.log(share)).sum(), abs=1e-5)


def test_texts_embedded_together_are_those_embedded_alone() -> None:
    jobs = [
        EmbedJob(release=str(POCKET_V1_FOLDER), patch=None, prompts=TEXTS[place:], skip=skip)
        for place in range(3)
        for skip in (0, 1)
    ]
    for job, one in zip(jobs, execute(jobs), strict=True):
        (alone,) = execute([job])
        assert isinstance(one, EmbedResult)
        assert isinstance(alone, EmbedResult)
        # fp32 in rows padded to another length
        np.testing.assert_allclose(one.vectors, alone.vectors, atol=1e-5)
        np.testing.assert_allclose(one.entropy, alone.entropy, atol=1e-5)
        np.testing.assert_array_equal(one.tokens, alone.tokens)
