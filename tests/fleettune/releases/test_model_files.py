"""A model's folder as files: shards, fused matrices, and a digest that no byte escapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone, read_shapes
from fleettune.releases.model_files import (
    INDEX,
    file_digests,
    folder_digest,
    open_weights,
    site_weights,
    weight_files,
    weights_bytes,
)
from fleettune.shapes import MODULES, Site
from tests.parity.model_folders import save_model


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    AutoModelForCausalLM.from_pretrained(POCKET_V1_FOLDER).save_pretrained(
        folder, max_shard_size="500KB"
    )
    shutil.copy(POCKET_V1_FOLDER / "tokenizer.json", folder)
    return folder


def test_shards_hold_the_weights_of_the_one_file(sharded: Path) -> None:
    assert len(weight_files(sharded)) > 3
    ours = load_backbone(sharded)
    found = dict(site_weights(sharded, ours.shapes.layers))
    assert len(found) == len(MODULES) * ours.shapes.layers
    for site, weight in found.items():
        np.testing.assert_array_equal(weight, ours.linear(site).weight.numpy())
    assert weights_bytes(sharded) == sum(f.stat().st_size for f in sharded.glob("*.safetensors"))


def test_a_missing_shard_is_named(sharded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    shutil.copytree(sharded, folder)
    weight_files(folder)[1].unlink()
    with pytest.raises(ValueError, match=r"lacks model-00002-of-\d+\.safetensors, which"):
        weight_files(folder)


def test_shards_without_their_index_are_refused(sharded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(sharded, folder)
    (folder / INDEX).unlink()
    with pytest.raises(ValueError, match="says what stands in which"):
        weight_files(folder)


def test_a_truncated_weights_file_is_named(tmp_path: Path) -> None:
    shutil.copytree(POCKET_V1_FOLDER, tmp_path / "cut")
    (file,) = weight_files(tmp_path / "cut")
    file.write_bytes(file.read_bytes()[:1000])
    with (
        pytest.raises(ValueError, match=r"model\.safetensors cannot be read"),
        open_weights(tmp_path / "cut"),
    ):
        pass


def test_a_fused_matrix_is_read_in_its_parts(tmp_path: Path) -> None:
    folder = save_model("phi3", tmp_path)
    backbone = load_backbone(folder)
    for site, found in site_weights(folder, backbone.shapes.layers):
        np.testing.assert_array_equal(found, backbone.linear(site).weight.numpy())
    assert dict(site_weights(folder, 1))[Site(0, "k")].shape == (32, 64)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_one_changed_byte_of_any_deciding_file_changes_the_digest(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(POCKET_V1_FOLDER, folder)
    assert folder_digest(folder) == folder_digest(POCKET_V1_FOLDER)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert folder_digest(folder) != folder_digest(POCKET_V1_FOLDER)
    changed = {k for k, v in file_digests(folder).items() if v != file_digests(POCKET_V1_FOLDER)[k]}
    assert changed == {name}


@pytest.mark.parametrize("name", [3, None, {"a": 1}, "../model.safetensors", "x" * 300])
def test_an_index_names_files_beside_it(tmp_path: Path, name: object) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="must name files beside it, got"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "96"}, "hidden must be a whole number, got '96'"),
        ({"num_attention_heads": 0}, "must be from 1 to"),
        ({"vocab_size": 10**30}, "vocab must be from 1 to"),
        ({"head_dim": [1]}, "head_dim must be a whole number"),
    ],
)
def test_a_configuration_without_sizes_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    config = json.loads((POCKET_V1_FOLDER / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        read_shapes(tmp_path)
