"""PEFT both ways: adapters that plain PEFT wrote, read back; ours, exported and imported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import LlamaForCausalLM

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import updates_of
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone
from fleettune.kernels.adapter_stack import apply_adapters, stack_patches
from simulations.adapter_formats.peft import KeptPatch, export_peft, import_peft, read_patch
from simulations.cli import main
from tests.simulations.adapter_formats.test_peft import (
    PLACEMENTS,
    drawn_tokens,
    peft_logits,
    trained,
)

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")


CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"]},
    "patterns": {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["v_proj", "gate_proj"],
        "rank_pattern": {"layers.3.self_attn.v_proj": 2},
        "alpha_pattern": {"gate_proj": 5},
    },
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["o_proj"]},
}


def written(folder: Path, **config: object) -> Path:
    """An adapter of PEFT's own making, its B drawn as after training."""
    base = LlamaForCausalLM.from_pretrained(POCKET_V1_FOLDER)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))  # pyright: ignore[reportArgumentType]
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    model.save_pretrained(str(folder))
    return folder


def logits(patch: Patch, tokens: torch.Tensor) -> torch.Tensor:
    backbone = load_backbone(POCKET_V1_FOLDER)
    with apply_adapters(backbone, stack_patches([patch.untie()], backbone)):
        return backbone.model(input_ids=tokens).logits


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_an_adapter_of_peft_computes_the_same_as_a_patch(name: str, tmp_path: Path) -> None:
    adapter = written(tmp_path / "adapter", **CONFIGS[name])
    tokens = drawn_tokens()
    patch = import_peft(adapter, 2, str(POCKET_V1_FOLDER)).patch
    assert patch.release == 2
    theirs = peft_logits(adapter, tokens, torch.float32)
    plain = load_backbone(POCKET_V1_FOLDER).model(input_ids=tokens).logits
    ours = logits(patch, tokens)
    assert float((theirs - plain).abs().max()) > 0.1
    # absolute, of logits up to 20 in fp32, as far as PEFT's own are from those in fp64
    assert float((ours - theirs).abs().max()) <= 3e-5


@pytest.mark.parametrize("arm", PLACEMENTS)
def test_a_patch_that_goes_out_and_comes_back_is_the_same_update(arm: str, tmp_path: Path) -> None:
    patch = trained(PLACEMENTS[arm])
    export_peft(KeptPatch(patch=patch, base=str(POCKET_V1_FOLDER)), tmp_path)
    back = import_peft(tmp_path, patch.release).patch
    assert back.ranks == patch.ranks
    if not patch.ties:
        assert back.digest() == patch.digest()
    for site, update in updates_of(patch).items():
        np.testing.assert_array_equal(updates_of(back)[site].dense(), update.dense())


@torch.no_grad()
def test_the_command_line_imports_and_exports_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, run, out = (tmp_path / name for name in ("adapter", "run", "out"))
    written(adapter, **CONFIGS["patterns"])
    imported = ["import", str(adapter), "--release", "3", "--into", str(run)]
    assert main([*imported, "--base", str(POCKET_V1_FOLDER)]) == 0
    told = capsys.readouterr().out.strip()
    assert told == str((run / "patches" / "imported" / "0.safetensors").resolve())
    assert read_patch(run, 0, None).patch.release == 3
    assert main(["export", str(run), "--device", "0", "--into", str(out)]) == 0
    tokens = drawn_tokens()
    one, other = (peft_logits(folder, tokens, torch.float64) for folder in (adapter, out))
    # B is rescaled by alpha_pattern in fp32 once
    assert float((one - other).abs().max()) <= 1e-5


def test_what_is_no_plain_lora_of_the_model_is_said(tmp_path: Path) -> None:
    adapter = written(tmp_path, **CONFIGS["plain"])
    config, file = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    told, arrays = json.loads(config.read_text()), load_file(file)

    def said(wrong: dict[str, object], base: str | None = str(POCKET_V1_FOLDER)) -> str:
        config.write_text(json.dumps(told | wrong))
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is what is tested
            import_peft(adapter, 0, base)
        config.write_text(json.dumps(told))
        return str(caught.value)

    assert "use_dora of" in said({"use_dora": True})
    assert "bias of" in said({"bias": "all"})
    assert "modules_to_save of" in said({"modules_to_save": ["lm_head"]})
    assert "peft_type of" in said({"peft_type": "VERA"})
    assert "the folder of a model (pocket: the built-in), got nowhere" in said({}, "nowhere")
    named: dict[str, object] = {"base_model_name_or_path": "gone/model"}
    assert "and gone/model, which the adapter names, is not here" in said(named, None)
    assert import_peft(adapter, 0, "pocket_v1").base == str(POCKET_V1_FOLDER)
    key = next(iter(arrays))
    save_file({**arrays, key.replace("layers.", "blocks."): arrays[key]}, file)
    assert "must hold LoRA factors of layers' matrices" in said({})
    save_file({**arrays, key: arrays[key][:, :-1].copy()}, file)
    assert "must fit a" in said({})
    save_file({name: array for name, array in arrays.items() if name != key}, file)
    assert "missing" in said({})
