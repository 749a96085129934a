"""Tied pairs on the bill: one pair and the vectors of its sites, wherever the priced layers are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Placement, new_patch
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.cost.memory import ADAPTER_STATE_BYTES, shared_bytes
from fleettune.cost.pricing import TARGETS, PricedModel
from fleettune.shapes import MODULES, Site

POCKET = read_shapes(POCKET_V1_FOLDER)
LLAMA = PricedModel(model="llama-3.2-1b")
SITES = (Site(2, "q"), Site(5, "q"), Site(7, "q"))
TIED = Placement(sites=(), rank=4, alpha=8.0, ties=(Tie(sites=SITES, rank=4, alpha=8.0),))
ALONE = Placement(sites=SITES, rank=4, alpha=8.0)


def test_a_shared_pair_is_sent_once_at_priced_shapes_by_hand() -> None:
    # 3 of 8 layers are 6 of 16; q is 2048 x 2048; one pair of rank 4, and 4 + 2048 per site
    weights = 4 * (2048 + 2048) + 6 * (4 + 2048)
    shapes = LLAMA.shapes(POCKET)
    groups = LLAMA.shared(POCKET, TIED.ranks, TIED.shared)
    assert [sorted(group) for group in groups] == [
        [Site(layer, "q") for layer in (4, 5, 10, 11, 14, 15)]
    ]
    assert shapes.kept_parameters(LLAMA.ranks(POCKET, TIED.ranks), groups) == weights
    patch = new_patch(TIED, POCKET, 0, np.random.default_rng(0))
    sent = LLAMA.patch_bytes(POCKET, patch.ranks, patch.size_bytes, patch.shared)
    # four bytes each; a tie's alpha, which is stored too, is scaled along
    assert sent == pytest.approx(4 * weights, rel=2e-3)
    own = new_patch(ALONE, POCKET, 0, np.random.default_rng(0))
    assert LLAMA.patch_bytes(POCKET, own.ranks, own.size_bytes) == 4 * 6 * 4 * 4096
    assert sent < LLAMA.patch_bytes(POCKET, own.ranks, own.size_bytes)
    assert PricedModel().patch_bytes(POCKET, patch.ranks, 77, patch.shared) == 77


def test_a_shared_pair_is_optimised_once() -> None:
    shapes = LLAMA.shapes(POCKET)
    ranks = LLAMA.ranks(POCKET, TIED.ranks)
    groups = LLAMA.shared(POCKET, TIED.ranks, TIED.shared)
    less = 5 * 4 * 4096 - 6 * (4 + 2048)
    assert shared_bytes(shapes, ranks, groups) == ADAPTER_STATE_BYTES * less
    assert shared_bytes(shapes, ranks, ()) == 0


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(TARGETS)),
    st.integers(2, 40),
    st.integers(0, 1000),
)
def test_groups_stay_disjoint_and_of_one_rank_at_any_depth(
    model: str, layers: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    own = POCKET if layers == 8 else type(POCKET)(**{**_sizes(), "layers": layers})
    ties, sites = list[Tie](), list[Site]()
    for module in MODULES:
        shuffled = [int(n) for n in rng.permutation(layers)]
        first, second = shuffled[: layers // 2], shuffled[layers // 2 : layers - 1]
        for part, rank in ((first, 2), (second, 3)):
            if len(part) > 1:
                held = tuple(Site(n, module) for n in sorted(part))
                ties.append(Tie(sites=held, rank=rank, alpha=8.0))
        sites.append(Site(shuffled[-1], module))
    placed = Placement(sites=tuple(sites), rank=2, alpha=8.0, ties=tuple(ties))
    priced = PricedModel(model=model)
    groups = priced.shared(own, placed.ranks, placed.shared)
    ranks = priced.ranks(own, placed.ranks)
    shapes = priced.shapes(own)
    # raises where groups overlap or mix ranks
    assert shapes.adapter_parameters(ranks, groups) <= shapes.adapter_parameters(ranks)


def _sizes() -> dict[str, int]:
    return {name: getattr(POCKET, name) for name in POCKET.__dataclass_fields__}
