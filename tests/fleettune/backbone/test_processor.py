"""Processors: what is asked for is checked, passed on, and no pass mixes two of them.

Training passes read their index tensors as they go, which tensors without values cannot show; they
are for `make gpu` to check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import LlamaConfig, LlamaForCausalLM

from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, Backbone, load_backbone
from fleettune.backbone.processor import check_processor, place_tensors_on
from fleettune.cohort.execute import JobBatch, execute, run_batches_here
from fleettune.cohort.score import choose_cohort, embed_cohort, score_cohort
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import (
    ChoiceJob,
    EmbedJob,
    EmbedResult,
    Job,
    Result,
    ScoreJob,
)
from fleettune.shapes import MODULES, Shapes, Site

SHAPES = Shapes(hidden=32, layers=3, heads=4, kv_heads=2, head_dim=8, ffn=48, vocab=100)
CONFIG = LlamaConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    vocab_size=100,
)
EXAMPLES = [Example(tokens=tuple(range(1, length)), prompt=3) for length in (5, 9, 12, 7)]
PROMPTS = ((1, 2, 3), (4, 5))


def patch(rank: int, first: int) -> Patch:
    sites = tuple(Site(layer, module) for layer in range(first, 3) for module in MODULES)
    rng = np.random.default_rng(rank)
    return new_patch(Placement(sites=sites, rank=rank, alpha=8.0), SHAPES, 0, rng)


PATCHES = [patch(2, 0), patch(4, 2)]
PASSES = {
    "score": lambda backbone: score_cohort(
        backbone, [ScoreJob(release="", patch=item, examples=(*EXAMPLES,)) for item in PATCHES]
    ),
    "score without a patch": lambda backbone: score_cohort(
        backbone, [ScoreJob(release="", patch=None, examples=(*EXAMPLES,))]
    ),
    "choose": lambda backbone: choose_cohort(
        backbone,
        [
            ChoiceJob(release="", patch=item, prompts=PROMPTS, answers=((7, 8), (9,)))
            for item in PATCHES
        ],
    ),
    "embed": lambda backbone: embed_cohort(
        backbone, [EmbedJob(release="", patch=item, prompts=PROMPTS) for item in PATCHES]
    ),
}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backbone]:
    """A backbone on another processor than the CPU, of tensors that have a device but no values.

    torch's fake tensors refuse to mix devices; values are asked for at the end of a pass only, and
    only those that were brought to the CPU can be read.
    """

    def zeros(tensor: torch.Tensor) -> np.ndarray:
        if tensor.device.type != "cpu":
            raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
        return np.zeros(tuple(tensor.shape), dtype=np.float32)

    for kind in (torch.Tensor, FakeTensor):
        monkeypatch.setattr(kind, "numpy", zeros, raising=False)
        monkeypatch.setattr(kind, "__float__", lambda _: 0.0, raising=False)
        monkeypatch.setattr(kind, "__int__", lambda _: 1, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("meta"):
            model = LlamaForCausalLM(CONFIG)
        model.requires_grad_(requires_grad=False)
        yield Backbone(model.eval(), SHAPES)


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_makes_every_tensor_where_its_backbone_is(name: str, elsewhere: Backbone) -> None:
    assert elsewhere.device.type == "meta"
    with place_tensors_on(elsewhere.device):
        assert PASSES[name](elsewhere)


@pytest.mark.parametrize("name", PASSES)
def test_the_check_before_would_see_a_tensor_on_another_processor(
    name: str, elsewhere: Backbone
) -> None:
    with pytest.raises(RuntimeError, match="on the same device, but found at least two devices"):
        PASSES[name](elsewhere)


def test_on_a_cpu_nothing_changes_where_tensors_are_made() -> None:
    backbone = load_backbone(POCKET_V1_FOLDER, processor="cpu")
    assert {weight.device.type for weight in backbone.model.parameters()} == {"cpu"}
    assert backbone.device == torch.device("cpu")
    with place_tensors_on(backbone.device) as context:
        assert context is None
        assert torch.zeros(1).device.type == "cpu"


def test_parts_carry_the_processor_that_was_asked_for() -> None:
    asked: list[str] = []

    def run_batches(parts: Sequence[JobBatch]) -> Iterable[Sequence[Result]]:
        asked.extend(part.processor for part in parts)
        return run_batches_here(parts)

    jobs: list[Job] = [EmbedJob(release=str(POCKET_V1_FOLDER), patch=None, prompts=PROMPTS)]
    (default,), (chosen,) = execute(jobs, run_batches), execute(jobs, run_batches, processor="cpu")
    assert asked == ["cpu", "cpu"]
    assert isinstance(default, EmbedResult)
    assert isinstance(chosen, EmbedResult)
    assert default.vectors.tobytes() == chosen.vectors.tobytes()


def test_unknown_and_absent_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"must be one of \('cpu', 'cuda'\), got 'mps'"):
        check_processor("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"must be cpu here: torch .* no CUDA device, got cuda"):
        check_processor("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_processor("cuda")
