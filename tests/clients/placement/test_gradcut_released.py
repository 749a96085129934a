"""GradCut as released: its steps by hand, and what its defaults make of scores that say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.placement.gradcut_released import (
    ReleasedRecipe,
    depth_outliers,
    dropped,
    placed_released,
    released_scores,
    scaled,
)
from fleettune.adapters.factors import Tie
from fleettune.shapes import MODULES, Site

RECIPE = ReleasedRecipe(
    rank=4,
    alpha=8.0,
    shared_rank=16,
    shared_alpha=32.0,
    keep_attention=18,
    keep_feed_forward=14,
    prune_step=3,
    prune_interval=10,
    weight_importance=1.0,
    weight_cost=2.0,
    overshoot=True,
)
LAYERS = 24


def survivors(scores: dict[Site, float], recipe: ReleasedRecipe) -> dict[Site, float]:
    """Phase 1 with scores that stay what they are."""
    active = dict(scores)
    for step in range(recipe.steps(LAYERS)):
        if recipe.prunes_after(step, LAYERS):
            for module in MODULES:
                mine = {site: value for site, value in active.items() if site.module == module}
                for site in dropped(mine, LAYERS, recipe):
                    del active[site]
    return active


def drawn(seed: int) -> dict[Site, float]:
    rng = np.random.default_rng(seed)
    return {Site(layer, m): float(rng.uniform()) for layer in range(LAYERS) for m in MODULES}


def counts(kept: dict[Site, float]) -> dict[str, int]:
    return {module: sum(site.module == module for site in kept) for module in MODULES}


def test_phase_1_takes_41_steps_and_prunes_at_10_20_30_and_40() -> None:
    assert RECIPE.steps(LAYERS) == 41
    assert [s for s in range(50) if RECIPE.prunes_after(s, LAYERS)] == [10, 20, 30, 40]


def test_feed_forward_matrices_overshoot_as_released_and_stop_at_14_as_meant() -> None:
    attention = dict.fromkeys("qkvo", 18)
    released = counts(survivors(drawn(0), RECIPE))
    assert released == attention | dict.fromkeys(("gate", "up", "down"), 12)
    meant = counts(survivors(drawn(0), replace(RECIPE, overshoot=False)))
    assert meant == attention | dict.fromkeys(("gate", "up", "down"), 14)


def test_the_smallest_keys_go_first_by_hand() -> None:
    # scores scaled 0, 1/2, 1; cost (layers - layer) scaled 1, 1/2, 0; keys -2, -1/2, 1
    mine = {Site(0, "q"): 1.0, Site(1, "q"): 2.0, Site(2, "q"): 3.0}
    recipe = replace(RECIPE, keep_attention=1, prune_step=2)
    assert dropped(mine, 3, recipe) == (Site(0, "q"), Site(1, "q"))
    assert dropped(mine, 3, replace(recipe, keep_attention=2, overshoot=False)) == (Site(0, "q"),)
    assert dropped(mine, 3, replace(recipe, keep_attention=3)) == ()
    # a score so high that it outweighs the depth: keys 1 - 2, 0 - 1, 0 - 0
    deep = {Site(0, "q"): 9.0, Site(1, "q"): 1.0, Site(2, "q"): 1.0}
    assert dropped(deep, 3, replace(recipe, weight_cost=0.5))[0] == Site(1, "q")


def test_equal_scores_are_no_division_by_zero() -> None:
    assert scaled({Site(0, "q"): 2.0, Site(5, "q"): 2.0}) == {Site(0, "q"): 0.0, Site(5, "q"): 0.0}
    placed = placed_released({Site(3, "q"): 1.0}, LAYERS, RECIPE)
    assert (placed.sites, placed.ties) == ((Site(3, "q"),), ())


def test_scores_are_norms_of_both_vectors() -> None:
    vectors = {Site(0, "q"): (np.array([3, 4], np.float32), np.array([0, 12, 5], np.float32))}
    assert released_scores(vectors) == {Site(0, "q"): 18.0}


def test_a_lone_deep_layer_is_an_outlier() -> None:
    sites = [Site(layer, "q") for layer in range(18, 24)] + [Site(0, "q")]
    assert depth_outliers(sites, LAYERS) == {0}
    assert depth_outliers(sites[:-1], LAYERS) == set()


def test_what_stands_out_is_dedicated_and_the_rest_shares_by_type() -> None:
    scores = {Site(layer, m): float(layer == 3) for layer in range(4) for m in ("q", "up")}
    placed = placed_released(scores, 4, RECIPE)
    assert placed.sites == (Site(3, "q"), Site(3, "up"))
    assert placed.ties == tuple(
        Tie(sites=tuple(Site(layer, m) for layer in range(3)), rank=16, alpha=32.0)
        for m in ("q", "up")
    )
    assert placed.ranks[Site(3, "q")] == 4
    assert placed.ranks[Site(0, "q")] == 16


def test_uninformative_scores_give_the_published_defaults_of_qwen() -> None:
    """: 46 dedicated, 62 shared, 60 skipped; lowest layer 1.4, then 5.0.

    Source: docs/methods.md#gradcut-released-expected-counts.
    """
    dedicated, lowest, after = [], [], []
    for seed in range(100):
        kept = survivors(drawn(seed), RECIPE)
        lowest.append(min(site.layer for site in kept))
        outliers = depth_outliers(list(kept), LAYERS)
        after.append(min(site.layer for site in kept if site.layer not in outliers))
        dedicated.append(
            sum(
                len(placed_released(mine, LAYERS, RECIPE).sites)
                for module in MODULES
                if (mine := {s: v for s, v in kept.items() if s.module == module})
            )
        )
        assert len(kept) == 168 - 60
    assert np.mean(lowest) == pytest.approx(1.4, abs=0.2)
    assert np.mean(after) == pytest.approx(5.0, abs=0.2)
    # before the outliers go, so counted type by type
    assert np.mean(dedicated) == pytest.approx(46, abs=2)


@pytest.mark.parametrize("name", ["keep_attention", "prune_step", "prune_interval"])
def test_a_recipe_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        replace(RECIPE, **{name: 0})
