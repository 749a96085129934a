"""A PEFT folder that is more than plain LoRA, or that contradicts itself, is refused by name."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoraConfig
from safetensors.numpy import save_file

from fleettune.adapters.patch import peft_name
from fleettune.adapters.patch_files import WEIGHTS, read_peft
from fleettune.adapters.peft_config import CONFIG, read_peft_config
from fleettune.shapes import Shapes, Site

SHAPES = Shapes(layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, ffn=16, vocab=50)
RANK = 4


def folder(into: Path, *, spoil: float | None = None, **told: object) -> Path:
    """A LoRA of rank 4 on q and v of layer 1; `told` replaces what its description says."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for module, n_out in (("q", 8), ("v", 4)):
        at = f"base_model.model.{peft_name(Site(1, module))}"
        arrays[f"{at}.lora_A.weight"] = rng.normal(size=(RANK, 8)).astype(np.float32)
        arrays[f"{at}.lora_B.weight"] = rng.normal(size=(n_out, RANK)).astype(np.float32)
    if spoil is not None:
        next(iter(arrays.values()))[0, 0] = spoil
    into.mkdir(exist_ok=True)
    save_file(arrays, into / WEIGHTS)
    config = LoraConfig(r=RANK, lora_alpha=8, target_modules=["q_proj", "v_proj"]).to_dict()
    plain = json.loads(
        json.dumps(
            config,
            default=lambda value: getattr(
                value, "value", list(value) if isinstance(value, set) else str(value)
            ),
        )
    )
    (into / CONFIG).write_text(json.dumps(plain | told))
    return into


def said(into: Path, **told: Any) -> str:  # noqa: ANN401 - values of a config
    with pytest.raises(ValueError, match=r"adapter_config\.json") as caught:
        read_peft(folder(into, **told), 0, SHAPES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key_of_pefts_own_plain_lora_is_known(tmp_path: Path) -> None:
    assert read_peft(folder(tmp_path), 0, SHAPES).ranks == {Site(1, "q"): 4, Site(1, "v"): 4}


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "lora_ga"])
def test_an_initialisation_that_changes_the_base_is_refused(tmp_path: Path, init: str) -> None:
    told = said(tmp_path, init_lora_weights=init)
    assert told.startswith("init_lora_weights of")
    assert "path_initial_model_for_weight_conversion" in told


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_an_initialisation_that_leaves_the_base_alone_is_taken(
    tmp_path: Path, init: bool | str
) -> None:
    assert read_peft(folder(tmp_path, init_lora_weights=init), 0, SHAPES).factors


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("use_qalora", True),
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [1, 2]),
        ("target_parameters", ["experts"]),
        ("something_of_next_year", 0.5),
    ],
)
def test_a_switch_that_changes_the_result_is_refused_by_name(
    tmp_path: Path, key: str, value: object
) -> None:
    assert said(tmp_path, **{key: value}).startswith(f"{key} of")


@pytest.mark.parametrize("alpha", [None, "8", True, [8], math.nan, math.inf, -1, 1e9])
def test_an_alpha_that_is_no_number_is_refused(tmp_path: Path, alpha: object) -> None:
    assert said(tmp_path, lora_alpha=alpha).startswith("lora_alpha of")


def test_a_missing_alpha_is_pefts_default(tmp_path: Path) -> None:
    file = folder(tmp_path) / CONFIG
    told = json.loads(file.read_text())
    del told["lora_alpha"]
    file.write_text(json.dumps(told))
    assert read_peft_config(file).alpha == LoraConfig().lora_alpha == 8


@pytest.mark.parametrize("content", ["[]", "3", "null", "{", '"x"', "[" * 100_000])
def test_what_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    file = folder(tmp_path) / CONFIG
    file.write_text(content)
    with pytest.raises(ValueError, match=r"adapter_config\.json must"):
        read_peft_config(file)


def test_a_rank_that_contradicts_the_tensors_is_refused(tmp_path: Path) -> None:
    assert "1.q has rank 16, its tensors have rank 4" in said(tmp_path, r=16)
    assert "1.v has rank 2" in said(tmp_path, rank_pattern={"v_proj": 2})
    assert read_peft(folder(tmp_path, r=16, rank_pattern={"[qv]_proj": 4}), 0, SHAPES).factors


def test_a_pattern_that_would_run_for_ever_ends_in_a_second(tmp_path: Path) -> None:
    begun = time.monotonic()
    told = said(tmp_path, alpha_pattern={"((?:[a-z_.0-9]?){0,30}){0,30}[A-Z]": 4})
    assert "alpha_pattern of" in told
    assert time.monotonic() - begun < 20  # unlimited it would take years
    assert "alpha_pattern of" in said(tmp_path, alpha_pattern={"(": 4})
    assert "RecursionError" in said(tmp_path, rank_pattern={"(" * 5000 + ")" * 5000: 4})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match=r"1\.self_attn\.q_proj\.lora_A\.weight must hold finite"):
        read_peft(folder(tmp_path, spoil=value), 0, SHAPES)


def test_a_number_of_hundreds_of_digits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lora_alpha .* must be a number from 0 to a million"):
        read_peft_config(folder(tmp_path, lora_alpha=10**400) / CONFIG)
