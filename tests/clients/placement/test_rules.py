"""Placement: which sites carry an adapter, how large that is, and what cannot be placed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clients.placement.rules import AttentionOnly, EverySite, TopLayers, shrink_placement
from fleettune.adapters.patch import Placement
from fleettune.shapes import MODULES, Shapes, Site

SHAPES = Shapes(hidden=8, layers=3, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16)


def test_every_site_adapts_all_seven_matrices_of_every_layer() -> None:
    placed = EverySite(rank=2, alpha=4).on(SHAPES)
    assert placed.sites == tuple(Site(layer, module) for layer in range(3) for module in MODULES)
    assert (placed.rank, placed.alpha) == (2, 4)


def test_top_layers_are_those_nearest_the_output() -> None:
    placed = TopLayers(layers=2, rank=2, alpha=4).on(SHAPES)
    assert placed.sites == tuple(Site(layer, module) for layer in (1, 2) for module in MODULES)


def test_all_layers_are_every_site() -> None:
    every, top = EverySite(rank=2, alpha=4), TopLayers(layers=3, rank=2, alpha=4)
    assert every.on(SHAPES) == top.on(SHAPES)


def test_size_by_hand() -> None:
    # Inputs plus outputs: q 8+8, k and v 8+4 each, o 8+8, gate, up, down 8+12 each = 116 per
    # layer; 2 layers, rank 3, 4 bytes.
    placed = TopLayers(layers=2, rank=3, alpha=4).on(SHAPES)
    assert placed.size_bytes(SHAPES) == 116 * 2 * 3 * 4


@pytest.mark.parametrize("rule", [EverySite(rank=5, alpha=4), TopLayers(layers=1, rank=5, alpha=4)])
def test_a_rank_above_the_smaller_side_of_a_matrix_is_refused(rule: EverySite | TopLayers) -> None:
    # k and v are 4 x 8.
    with pytest.raises(ValueError, match=r"rank must be between 1 and 4, .* 4 x 8 .*, got 5"):
        rule.on(SHAPES)


@pytest.mark.parametrize("layers", [0, 4])
def test_more_layers_than_the_model_has_or_none_are_refused(layers: int) -> None:
    with pytest.raises(ValueError, match=f"layers must be between 1 and 3, .*, got {layers}"):
        TopLayers(layers=layers, rank=2, alpha=4).on(SHAPES)


def test_an_alpha_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha must be > 0, got 0"):
        EverySite(rank=2, alpha=0).on(SHAPES)


def test_attention_only_leaves_the_feed_forward_matrices_alone() -> None:
    placed = AttentionOnly(rank=2, alpha=4).on(SHAPES)
    assert placed.sites == tuple(Site(layer, module) for layer in range(3) for module in "qkvo")


def layers_of(placed: Placement) -> list[int]:
    return sorted({site.layer for site in placed.sites})


def test_a_smaller_placement_is_the_upper_half_of_the_layers_down_to_one() -> None:
    seven = replace(SHAPES, layers=7)
    rule = TopLayers(layers=5, rank=2, alpha=4, shrink=True)
    tried = [rule.on(seven)]
    while (smaller := shrink_placement(rule, tried[-1])) is not None:
        tried.append(smaller)
    assert [layers_of(placed) for placed in tried] == [[2, 3, 4, 5, 6], [5, 6], [6]]
    # each is what the same rule with fewer layers would have placed
    for placed in tried:
        fewer = replace(rule, layers=len(layers_of(placed)))
        assert placed == fewer.on(seven)


@pytest.mark.parametrize("rule", [EverySite(rank=2, alpha=4), TopLayers(layers=2, rank=2, alpha=4)])
def test_without_shrink_there_is_nothing_smaller(rule: EverySite | TopLayers) -> None:
    assert shrink_placement(rule, rule.on(SHAPES)) is None
