"""Priced as: a target's published size, adapters at the same relative depth, ratios by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleettune.cost.pricing import OWN, TARGETS, PricedModel
from fleettune.cost.work import Work
from fleettune.shapes import MODULES, Shapes, Site

POCKET = Shapes(hidden=96, layers=8, heads=4, kv_heads=2, head_dim=24, ffn=256, vocab=1024)
LLAMA = PricedModel(model="llama-3.2-1b", tokens_ratio=0.78)
targets = pytest.mark.parametrize("model", TARGETS)
modules = st.sampled_from(MODULES)


def shallow(layers: int) -> Shapes:
    return replace(POCKET, layers=layers)


@pytest.mark.parametrize(
    ("model", "millions", "biases"),
    [
        ("smollm2-360m", 361.8, 0),
        # Qwen2.5 adds biases to q, k and v, which shapes leave out: 24 * (896 + 128 + 128)
        ("qwen2.5-0.5b", 494.0, 27_648),
        ("llama-3.2-1b", 1235.8, 0),
        ("llama-3.2-3b", 3212.7, 0),
    ],
)
def test_parameters_are_those_published(model: str, millions: float, biases: int) -> None:
    assert (TARGETS[model].parameters + biases) / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_parameters_of_llama_1b_by_hand() -> None:
    # q and o 2048 x 2048, k and v 512 x 2048, gate, up and down 8192 x 2048; two norms a layer, one
    # at the end; the embedding once.
    layer = 2 * 2048 * 2048 + 2 * 512 * 2048 + 3 * 8192 * 2048 + 2 * 2048
    total = 16 * layer + 2048 + 128_256 * 2048
    assert TARGETS["llama-3.2-1b"].parameters == total == 1_235_814_400


@targets
@given(own=st.integers(1, 40), module=modules, rank=st.integers(1, 8))
def test_layers_follow_their_definition(model: str, own: int, module: str, rank: int) -> None:
    priced = PricedModel(model=model)
    there = TARGETS[model].layers
    union: set[int] = set()
    for layer in range(own):
        found = priced.ranks(shallow(own), {Site(layer, module): rank})
        assert found
        assert set(found.values()) == {rank}
        assert {site.module for site in found} == {module}
        layers = {site.layer for site in found}
        assert layers <= set(range(there))
        standing_for_it = {j for j in range(there) if j * own // there == layer}
        assert layers == (standing_for_it or {layer * there // own})
        union |= layers
    assert union == set(range(there))


@targets
@given(own=st.integers(1, 16))
def test_no_layer_of_a_deeper_model_stands_for_two(model: str, own: int) -> None:
    priced = PricedModel(model=model)
    found = [
        site.layer
        for layer in range(own)
        for site in priced.ranks(shallow(own), {Site(layer, "q"): 1})
    ]
    assert sorted(found) == list(range(TARGETS[model].layers))


def test_ranks_of_pocket_on_llama_by_hand() -> None:
    # 8 layers on 16: layer l becomes layers 2l and 2l + 1.
    ranks = {Site(7, "q"): 4, Site(7, "down"): 2, Site(3, "v"): 8}
    assert LLAMA.ranks(POCKET, ranks) == {
        Site(14, "q"): 4,
        Site(15, "q"): 4,
        Site(14, "down"): 2,
        Site(15, "down"): 2,
        Site(6, "v"): 8,
        Site(7, "v"): 8,
    }


def test_ranks_on_a_depth_that_does_not_divide_by_hand() -> None:
    # 8 layers on 28, 3.5 each: layer j stands for floor(2j / 7).
    priced = PricedModel(model="llama-3.2-3b")
    of = [
        sorted(site.layer for site in priced.ranks(POCKET, {Site(layer, "q"): 1}))
        for layer in (0, 1, 2, 7)
    ]
    assert of == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10], [25, 26, 27]]


def test_a_shallower_model_keeps_the_larger_rank_where_two_layers_fall_on_one() -> None:
    # 32 layers on 16: layers 2l and 2l + 1 become layer l.
    ranks = {Site(30, "q"): 2, Site(31, "q"): 5, Site(29, "q"): 3}
    assert LLAMA.ranks(shallow(32), ranks) == {Site(15, "q"): 5, Site(14, "q"): 3}


def test_tokens_are_rounded_up() -> None:
    # 0.78 * 100 = 78 exactly; 0.78 * 101 = 78.78; one token never becomes none.
    assert LLAMA.lengths([0, 1, 101]) == [0, 1, 79]
    assert PricedModel(model="llama-3.2-1b", tokens_ratio=0.5).lengths([100, 101]) == [50, 51]


def test_a_release_is_as_large_as_its_weights() -> None:
    # Llama-3.2-1B in half precision and in 4 bits; the simulated model's own is what is stored
    assert LLAMA.release_bytes(POCKET, 1000) == 2 * 1_235_814_400
    in_4_bits = replace(LLAMA, bits_per_weight=4.0)
    assert in_4_bits.release_bytes(POCKET, 1000) == 1_235_814_400 / 2
    assert PricedModel().release_bytes(POCKET, 1000) == 1000


def test_patch_bytes_by_hand() -> None:
    # Rank 2 on q of the top layer: 2 * (96 + 96) weights of 4 bytes = 1536 bytes. On Llama two
    # layers, 2 * (2048 + 2048) weights each: 65,536 bytes.
    ranks = {Site(7, "q"): 2}
    assert LLAMA.patch_bytes(POCKET, ranks, 1536) == pytest.approx(65_536)
    # half precision is half as much on both
    assert LLAMA.patch_bytes(POCKET, ranks, 768) == pytest.approx(32_768)
    assert LLAMA.patch_bytes(POCKET, {}, 0) == 0


def test_work_on_whole_matrices_grows_with_their_entries() -> None:
    # q: 96 * 96 = 9216 entries here, two layers of 2048 * 2048 = 4,194,304 there.
    work = LLAMA.dense_work(POCKET, {Site(7, "q"): 2}, Work(flop=9216.0, traffic_bytes=18_432.0))
    assert work.flop == pytest.approx(8_388_608)
    assert work.traffic_bytes == pytest.approx(16_777_216)
    assert LLAMA.dense_work(POCKET, {}, Work()) == Work()


@given(
    ranks=st.dictionaries(st.builds(Site, st.integers(0, 7), modules), st.integers(1, 8)),
    counts=st.lists(st.integers(0, 10**6)),
    size=st.floats(0, 1e12),
)
def test_own_is_the_identity(ranks: dict[Site, int], counts: list[int], size: float) -> None:
    own, work = PricedModel(), Work(flop=3.0, traffic_bytes=5.0)
    assert own == PricedModel(model=OWN, tokens_ratio=1.0)
    assert own.shapes(POCKET) == POCKET
    assert own.ranks(POCKET, ranks) == ranks
    assert own.lengths(counts) == counts
    # size * parameters / parameters may round once each way
    assert own.release_bytes(POCKET, size) == pytest.approx(size, rel=1e-15)
    assert own.patch_bytes(POCKET, ranks, size) == size
    assert own.dense_work(POCKET, ranks, work) == work


def test_a_ratio_of_tokens_is_not_used_by_own() -> None:
    assert PricedModel(model=OWN, tokens_ratio=0.5).tokens(100) == 100


@targets
def test_the_adapters_of_every_site_are_those_of_every_site_there(model: str) -> None:
    every = {Site(layer, module): 8 for layer in range(8) for module in MODULES}
    priced, shapes = PricedModel(model=model), TARGETS[model]
    sites = {Site(layer, module) for layer in range(shapes.layers) for module in MODULES}
    assert priced.ranks(POCKET, every) == dict.fromkeys(sites, 8)
    per_layer = sum(sum(size) for size in shapes.matrices().values())
    assert shapes.adapter_parameters(priced.ranks(POCKET, every)) == 8 * shapes.layers * per_layer


def test_a_model_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"cost\.model must be .*got 'llama'") as caught:
        PricedModel(model="llama")
    assert all(name in str(caught.value) for name in (OWN, *TARGETS))


@pytest.mark.parametrize("ratio", [0.0, -1.0, 10.01, math.inf, math.nan])
def test_a_ratio_of_tokens_that_cannot_be_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"tokens_ratio must be > 0 and <= 10, got {ratio}"):
        PricedModel(model="llama-3.2-1b", tokens_ratio=ratio)
