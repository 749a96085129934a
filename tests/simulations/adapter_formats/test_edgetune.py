"""The published format of a patch: three parts, and nothing pickled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.seeds import Purpose, stream
from fleettune.shapes import Site
from simulations.adapter_formats.edgetune import export_edgetune
from simulations.adapter_formats.peft import KeptPatch

SHAPES = read_shapes(POCKET_FOLDER)
PLACEMENT = Placement(
    sites=(Site(3, "q"), Site(7, "down")),
    rank=2,
    alpha=3.0,
    ties=(
        Tie(sites=(Site(2, "up"), Site(5, "up")), rank=4, alpha=8.0),
        Tie(sites=(Site(6, "q"), Site(7, "q")), rank=4, alpha=16.0),
    ),
)


def patch(placement: Placement = PLACEMENT) -> Patch:
    return new_patch(placement, SHAPES, 3, stream(1, Purpose.ADAPTER))


def exported(into: Path, placement: Placement = PLACEMENT) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of the three files that a patch becomes, by the name of their file."""
    export_edgetune(KeptPatch(patch=patch(placement), base="model"), into)
    return {file.stem: load_file(file) for file in into.glob("*.safetensors")}


def test_the_parts_are_those_of_the_publication(tmp_path: Path) -> None:
    parts = exported(tmp_path)
    assert set(parts) == {"shared_lora", "layer_lora_info", "dedicated_loras"}
    assert set(parts["shared_lora"]) == {"q.A", "q.B", "up.A", "up.B"}
    assert set(parts["dedicated_loras"]) == {"3.q.A", "3.q.B", "7.down.A", "7.down.B"}
    assert set(parts["layer_lora_info"]) == {
        f"{site}.{side}" for site in patch().ranks for side in "uv"
    }
    plain = json.loads((tmp_path / "layer_lora_info.json").read_text())
    assert plain["types"]["6.q"] == "shared"
    assert plain["types"]["3.q"] == "dedicated"
    assert plain["alphas"] == {"up": 8.0, "q": 16.0, "dedicated": 3.0}
    assert (plain["release"], plain["base"]) == (3, "model")


def test_arrays_are_those_of_the_patch(tmp_path: Path) -> None:
    parts, ours = exported(tmp_path), patch()
    own, (up, _) = ours.factors[Site(3, "q")], ours.ties
    np.testing.assert_array_equal(parts["dedicated_loras"]["3.q.A"], own.a)
    np.testing.assert_array_equal(parts["dedicated_loras"]["3.q.B"], own.b)
    np.testing.assert_array_equal(parts["shared_lora"]["up.A"], up.pair.a)
    np.testing.assert_array_equal(parts["shared_lora"]["up.B"], up.pair.b)
    for side, vector in zip("uv", up.vectors[Site(5, "up")], strict=True):
        np.testing.assert_array_equal(parts["layer_lora_info"][f"5.up.{side}"], vector)


def test_vectors_of_dedicated_sites_are_ones(tmp_path: Path) -> None:
    info = exported(tmp_path)["layer_lora_info"]
    np.testing.assert_array_equal(info["3.q.u"], np.ones(2))
    np.testing.assert_array_equal(info["3.q.v"], np.ones(SHAPES.matrices()["q"][1]))


def test_nothing_is_pickled_and_nothing_overwritten(tmp_path: Path) -> None:
    exported(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}
    with pytest.raises(ValueError, match=r"must name a folder without layer_lora_info\.json"):
        exported(tmp_path)


def test_a_patch_without_ties_has_no_shared_part(tmp_path: Path) -> None:
    parts = exported(tmp_path, replace(PLACEMENT, ties=()))
    assert parts["shared_lora"] == {}
    assert set(parts["dedicated_loras"]) == {"3.q.A", "3.q.B", "7.down.A", "7.down.B"}


def test_two_shared_pairs_of_a_module_type_have_no_place(tmp_path: Path) -> None:
    other = Tie(sites=(Site(0, "q"), Site(1, "q")), rank=4, alpha=8.0)
    with pytest.raises(ValueError, match="one shared pair per module type"):
        exported(tmp_path / "patch", replace(PLACEMENT, ties=(PLACEMENT.ties[1], other)))
    assert not (tmp_path / "patch").exists()
