"""The published format of a patch: three parts and back, and nothing pickled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Patch, Placement, new_patch, to_arrays
from fleettune.backbone.causal_lm import POCKET_FOLDER, read_shapes
from fleettune.seeds import Purpose, stream
from fleettune.shapes import Site
from simulations.adapter_formats.edgetune import (
    export_published,
    from_published,
    read_published,
    to_published,
)
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


def test_a_patch_comes_back_from_its_published_parts() -> None:
    ours, back = to_arrays(patch()), to_arrays(from_published(to_published(patch())))
    assert ours.keys() == back.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, back[name])
    assert from_published(to_published(patch())).digest() == patch().digest()


def test_the_parts_are_those_of_the_publication() -> None:
    parts = to_published(patch())
    assert set(parts.shared_lora) == {"q.A", "q.B", "up.A", "up.B"}
    assert set(parts.dedicated_loras) == {"3.q.A", "3.q.B", "7.down.A", "7.down.B"}
    assert set(parts.layer_lora_info) == {
        f"{site}.{side}" for site in patch().ranks for side in "uv"
    }
    assert parts.types["6.q"] == "shared"
    assert parts.types["3.q"] == "dedicated"
    assert parts.alphas == {"up": 8.0, "q": 16.0, "dedicated": 3.0}
    np.testing.assert_array_equal(parts.layer_lora_info["3.q.u"], np.ones(2))


def test_vectors_of_dedicated_sites_count_where_others_trained_them() -> None:
    parts = to_published(patch())
    n_out = parts.layer_lora_info["3.q.v"].size
    u, v = np.array([2, 3], np.float32), np.full(n_out, 5, np.float32)
    b = np.ones((n_out, 2), np.float32)
    info = {**parts.layer_lora_info, "3.q.u": u, "3.q.v": v}
    other = replace(
        parts, layer_lora_info=info, dedicated_loras={**parts.dedicated_loras, "3.q.B": b}
    )
    back = from_published(other).factors[Site(3, "q")]
    np.testing.assert_array_equal(back.b, np.tile(np.array([10, 15], np.float32), (n_out, 1)))


def test_it_is_written_and_read_without_pickles(tmp_path: Path) -> None:
    into = tmp_path / "patch"
    export_published(KeptPatch(patch=patch(), base="model"), into)
    assert {file.suffix for file in into.iterdir()} == {".safetensors", ".json"}
    assert set(load_file(into / "shared_lora.safetensors")) == {"q.A", "q.B", "up.A", "up.B"}
    back = read_published(into)
    assert (back.base, back.patch.digest()) == ("model", patch().digest())
    with pytest.raises(ValueError, match=r"must name a folder without layer_lora_info\.json"):
        export_published(KeptPatch(patch=patch(), base="model"), into)


def test_a_patch_without_ties_has_no_shared_part(tmp_path: Path) -> None:
    alone = patch(replace(PLACEMENT, ties=()))
    export_published(KeptPatch(patch=alone, base="model"), tmp_path / "patch")
    assert read_published(tmp_path / "patch").patch.digest() == alone.digest()


def test_what_has_no_place_in_the_format_is_refused() -> None:
    twice = replace(
        PLACEMENT,
        ties=(
            PLACEMENT.ties[1],
            Tie(sites=(Site(0, "q"), Site(1, "q")), rank=4, alpha=8.0),
        ),
    )
    with pytest.raises(ValueError, match="one shared pair per module type"):
        to_published(patch(twice))
    parts = to_published(patch())
    with pytest.raises(ValueError, match=r"must hold 3\.q\.B"):
        from_published(replace(parts, dedicated_loras={}))
    with pytest.raises(ValueError, match=r"type must be shared or dedicated, got .'lost'"):
        from_published(replace(parts, types={"3.q": "lost"}))
