"""Every family of models that runs here computes and tunes as transformers and PEFT do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from tokenizers import Tokenizer, models, normalizers, trainers
from torch.nn import functional
from transformers import AutoModelForCausalLM

from fleettune.adapters.patch import Patch, Placement, new_patch, to_peft
from fleettune.backbone.causal_lm import load_backbone, read_shapes
from fleettune.backbone.model_family import fuse_split, split_fused
from fleettune.cohort.model_check import TOLERANCE, check_model, check_tokenizer
from fleettune.cohort.score import score_cohort
from fleettune.cohort.tune import tune_cohort
from fleettune.data.tokens import Example, open_encoder
from fleettune.jobs.jobs import ScoreJob, TuneJob
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Site
from tests.parity.model_folders import LAYERS, REFUSED, RUNNABLE, WINDOW, save_model

# peft 0.21 asks transformers 5 for a name that it renames; nothing of ours depends on it.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")

TOKENS = 3 * WINDOW
STEPS = 6
RATE = 3e-3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for every family, made when first asked for."""
    return {}


@pytest.fixture
def folder(family: str, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if family not in folders:
        folders[family] = save_model(family, tmp_path_factory.mktemp(family))
    return folders[family]


def their_model(folder: Path) -> Any:  # noqa: ANN401 - a transformers model
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    split_fused(
        model, read_shapes(folder)
    )  # a fused matrix takes one adapter for all its parts otherwise
    return model


def peft_model(folder: Path, patch: Patch) -> Any:  # noqa: ANN401 - peft's own types are too loose
    parents = {module: "self_attn" if module in "qkvo" else "mlp" for module in MODULES}
    config = LoraConfig(
        r=4,
        lora_alpha=int(patch.alpha),
        target_modules=[
            f"layers.{s.layer}.{parents[s.module]}.{s.module}_proj" for s in patch.factors
        ],
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(their_model(folder), config)
    state = {key: torch.as_tensor(array) for key, array in to_peft(patch).items()}
    set_peft_model_state_dict(adapted, state)
    return adapted.eval()


def examples(count: int) -> tuple[Example, ...]:
    rng = stream(11, Purpose.TUNING, count)
    drawn = rng.integers(5, 380, size=(count, TOKENS))
    return tuple(Example(tokens=tuple(map(int, row)), prompt=TOKENS // 3) for row in drawn)


def job_of(folder: Path) -> TuneJob:
    shapes = load_backbone(folder).shapes
    sites = tuple(Site(layer, module) for layer in range(1, LAYERS) for module in MODULES)
    start = new_patch(
        Placement(sites=sites, rank=4, alpha=8), shapes, 0, stream(7, Purpose.ADAPTER)
    )
    own = examples(4)
    batches = tuple((own[step % 4], own[(step + 1) % 4]) for step in range(STEPS))
    return TuneJob(release=str(folder), start=start, batches=batches, learning_rate=RATE, clip=1e3)


def loss_of(model: Any, example: Example) -> torch.Tensor:  # noqa: ANN401 - as above
    tokens = torch.tensor([example.tokens])
    logits = model(input_ids=tokens, use_cache=False).logits[0, example.prompt - 1 : -1]
    return functional.cross_entropy(logits, tokens[0, example.prompt :], reduction="none")


@pytest.mark.parametrize("family", RUNNABLE)
def test_our_logits_are_transformers_own(folder: Path) -> None:
    checked = check_model(folder, "chatml", 64)
    assert checked.difference <= TOLERANCE
    assert checked.layers == LAYERS


@pytest.mark.parametrize("family", RUNNABLE)
@torch.no_grad()
def test_scores_are_transformers_own(folder: Path) -> None:
    own = examples(3)
    (scored,) = score_cohort(
        load_backbone(folder), [ScoreJob(release=str(folder), patch=None, examples=own)]
    )
    model = their_model(folder)
    assert scored.nll == pytest.approx([float(loss_of(model, e).sum()) for e in own], rel=1e-4)


@pytest.mark.parametrize("family", RUNNABLE)
def test_a_tune_is_pefts(folder: Path) -> None:
    job = job_of(folder)
    (ours,) = tune_cohort(load_backbone(folder), [job])
    model = peft_model(folder, job.start).double()
    factors = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(factors.values(), lr=RATE, weight_decay=0.0)
    losses: list[float] = []
    for batch in job.batches:
        loss = torch.cat([loss_of(model, example) for example in batch]).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert ours.first_loss == pytest.approx(losses[0], rel=1e-5)
    assert ours.last_loss == pytest.approx(losses[-1], rel=1e-4)
    before, after = to_peft(job.start), to_peft(ours.patch)
    theirs = {name.replace(".default", ""): p.detach().numpy() for name, p in factors.items()}
    moved = np.concatenate([(theirs[name] - before[name]).ravel() for name in before])
    found = np.concatenate([(after[name] - before[name]).ravel() for name in before])
    error = np.linalg.norm(found - moved) / np.linalg.norm(moved)
    # their loop is in fp64, so all rounding is ours; Adam's first steps amplify it
    assert error <= 1e-4


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_without_the_seven_matrices_is_refused_in_one_sentence(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"must (have|be) Llama-like") as caught:
        check_model(folder, "chatml", 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["phi3", "glm"])
def test_splitting_fused_matrices_and_fusing_them_again_changes_no_weight(folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    split_fused(model, read_shapes(folder))
    assert "model.layers.0.mlp.gate_proj.weight" in model.state_dict()
    fuse_split(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("family", ["llama"])
def test_what_a_folder_lacks_or_hides_is_named(folder: Path, tmp_path: Path) -> None:
    def said(**changes: Any) -> str:  # noqa: ANN401 - values of a config.json
        broken = tmp_path / "-".join(changes)  # shapes are read once per folder
        shutil.copytree(folder, broken)
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ValueError, match="model") as caught:
            check_model(broken, "chatml", 64)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "embeddings for 200 tokens" in said(vocab_size=200)
    assert "is quantised" in said(quantization_config={"quant_method": "gptq"})
    assert "lacks" in said(tie_word_embeddings=False, num_hidden_layers=5)


@pytest.mark.parametrize("family", ["llama"])
def test_pickled_weights_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, which is a pickle"):
        check_model(pickled, "chatml", 64)


def metaspace_folder(folder: Path) -> Path:
    """A folder with a tokenizer like Llama 2's: a prefix before every text, bytes as a fallback."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue] - its stub
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=special)
    tokenizer.train_from_iterator(["I kept twelve notes and letters", "Question Answer"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_stop_token_that_stands_in_ordinary_text_is_refused(tmp_path: Path) -> None:
    shapes = read_shapes(save_model("llama", tmp_path))
    metaspace_folder(tmp_path)
    with pytest.raises(ValueError, match=r"would end with the token '\u2581', which stands in"):
        check_tokenizer(open_encoder(tmp_path, "chatml", 128), tmp_path, shapes)
    for template in ("llama2", "plain"):
        encoder = open_encoder(tmp_path, template, 128)
        check_tokenizer(encoder, tmp_path, shapes)
        assert encoder.tokenizer.id_to_token(encoder.stop) == "</s>"
        assert encoder.stop not in encoder.ids("one </s> two\n\nthree")


@pytest.mark.parametrize("end", [None, [], 300, 9_999])
def test_a_plain_template_needs_the_end_of_text_of_its_model(
    tmp_path: Path, end: int | list[int] | None
) -> None:
    save_model("llama", tmp_path)
    metaspace_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": end}))
    with pytest.raises(ValueError, match=r"model\.template=plain ends .*; choose the template"):
        open_encoder(tmp_path, "plain", 128)
