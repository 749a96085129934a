"""GradCut as released: its steps by hand, uninformative scores, and a night that trains first."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from clients.device import run_round
from clients.placement.published.gradcut_released import (
    GradCutReleased,
    depth_outliers,
    place_survivors,
    scale,
    score_sites,
    sites_to_drop,
)
from clients.placement.rules import PreparingRule, StartingRule, TopLayers
from clients.policy import read_policy
from clients.retuning.plan import open_context
from clients.state.state import DeviceState
from clients.tuning.context import PlacementContext, Preparation
from clients.work.facts import Facts
from clients.work.stage_work import tune_work
from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Patch
from fleettune.cohort.suspension import current_compute
from fleettune.cost.ledger import Stage
from fleettune.jobs.jobs import Compute, Job, Result, TuneJob, TuneResult
from fleettune.messages.report import Report
from fleettune.records import to_record
from fleettune.shapes import MODULES, Site
from tests.clients.phone import FACTS, RELEASE, SHAPES, WORLD, nightly, order_for, why_not

RECIPE = GradCutReleased(
    rank=4,
    alpha=8.0,
    shared_rank=16,
    shared_alpha=32.0,
    keep_attention=18 / 24,
    keep_feed_forward=14 / 24,
    prune_share=3 / 24,
    prune_interval=10,
    weight_importance=1.0,
    weight_cost=2.0,
    overshoot=True,
)
"""The defaults for Qwen2.5-0.5B."""
QWEN_LAYERS = 24
LAYERS = SHAPES.layers
RULE = GradCutReleased(
    rank=4,
    alpha=8.0,
    shared_rank=4,
    shared_alpha=8.0,
    keep_attention=18 / 24,
    keep_feed_forward=14 / 24,
    prune_share=3 / 24,
    prune_interval=5,
    weight_importance=1.0,
    weight_cost=2.0,
    overshoot=False,
)
POLICY = nightly(RULE)


def survivors(scores: dict[Site, float], recipe: GradCutReleased) -> dict[Site, float]:
    """Phase 1 with scores that stay what they are."""
    active = dict(scores)
    for step in range(recipe.steps(QWEN_LAYERS)):
        if recipe.prunes_after(step, QWEN_LAYERS):
            for module in MODULES:
                mine = {site: value for site, value in active.items() if site.module == module}
                for site in sites_to_drop(mine, QWEN_LAYERS, recipe):
                    del active[site]
    return active


def drawn(seed: int) -> dict[Site, float]:
    rng = np.random.default_rng(seed)
    return {Site(layer, m): float(rng.uniform()) for layer in range(QWEN_LAYERS) for m in MODULES}


def counts(kept: dict[Site, float]) -> dict[str, int]:
    return {module: sum(site.module == module for site in kept) for module in MODULES}


def test_phase_1_takes_41_steps_and_prunes_at_10_20_30_and_40() -> None:
    assert RECIPE.steps(QWEN_LAYERS) == 41
    assert [s for s in range(50) if RECIPE.prunes_after(s, QWEN_LAYERS)] == [10, 20, 30, 40]


def test_feed_forward_matrices_overshoot_as_released_and_stop_at_14_as_meant() -> None:
    attention = dict.fromkeys("qkvo", 18)
    released = counts(survivors(drawn(0), RECIPE))
    assert released == attention | dict.fromkeys(("gate", "up", "down"), 12)
    meant = counts(survivors(drawn(0), replace(RECIPE, overshoot=False)))
    assert meant == attention | dict.fromkeys(("gate", "up", "down"), 14)


def test_the_smallest_keys_go_first_by_hand() -> None:
    # scores scaled 0, 1/2, 1; cost (layers - layer) scaled 1, 1/2, 0; keys -2, -1/2, 1
    mine = {Site(0, "q"): 1.0, Site(1, "q"): 2.0, Site(2, "q"): 3.0}
    recipe = replace(RECIPE, keep_attention=1 / 3, prune_share=2 / 3)
    assert sites_to_drop(mine, 3, recipe) == (Site(0, "q"), Site(1, "q"))
    assert sites_to_drop(mine, 3, replace(recipe, keep_attention=2 / 3, overshoot=False)) == (
        Site(0, "q"),
    )
    assert sites_to_drop(mine, 3, replace(recipe, keep_attention=1.0)) == ()
    # a score so high that it outweighs the depth: keys 1 - 2, 0 - 1, 0 - 0
    deep = {Site(0, "q"): 9.0, Site(1, "q"): 1.0, Site(2, "q"): 1.0}
    assert sites_to_drop(deep, 3, replace(recipe, weight_cost=0.5))[0] == Site(1, "q")


def test_equal_scores_are_no_division_by_zero() -> None:
    assert scale({Site(0, "q"): 2.0, Site(5, "q"): 2.0}) == {Site(0, "q"): 0.0, Site(5, "q"): 0.0}
    placed = place_survivors({Site(3, "q"): 1.0}, QWEN_LAYERS, RECIPE)
    assert (placed.sites, placed.ties) == ((Site(3, "q"),), ())


def test_scores_are_norms_of_both_vectors() -> None:
    vectors = {Site(0, "q"): (np.array([3, 4], np.float32), np.array([0, 12, 5], np.float32))}
    assert score_sites(vectors) == {Site(0, "q"): 18.0}


def test_a_lone_deep_layer_is_an_outlier() -> None:
    sites = [Site(layer, "q") for layer in range(18, 24)] + [Site(0, "q")]
    assert depth_outliers(sites, QWEN_LAYERS) == {0}
    assert depth_outliers(sites[:-1], QWEN_LAYERS) == set()


def test_what_stands_out_is_dedicated_and_the_rest_shares_by_type() -> None:
    scores = {Site(layer, m): float(layer == 3) for layer in range(4) for m in ("q", "up")}
    placed = place_survivors(scores, 4, RECIPE)
    assert placed.sites == (Site(3, "q"), Site(3, "up"))
    assert placed.ties == tuple(
        Tie(sites=tuple(Site(layer, m) for layer in range(3)), rank=16, alpha=32.0)
        for m in ("q", "up")
    )
    assert placed.ranks[Site(3, "q")] == 4
    assert placed.ranks[Site(0, "q")] == 16


def test_uninformative_scores_give_the_published_defaults_of_qwen() -> None:
    """46 dedicated, 62 shared, 60 skipped; lowest layer 1.4, then 5.0.

    Source: docs/methods.md#gradcut-released-expected-counts.
    """
    dedicated, lowest, after = [], [], []
    for seed in range(100):
        kept = survivors(drawn(seed), RECIPE)
        lowest.append(min(site.layer for site in kept))
        outliers = depth_outliers(list(kept), QWEN_LAYERS)
        after.append(min(site.layer for site in kept if site.layer not in outliers))
        dedicated.append(
            sum(
                len(place_survivors(mine, QWEN_LAYERS, RECIPE).sites)
                for module in MODULES
                if (mine := {s: v for s, v in kept.items() if s.module == module})
            )
        )
        assert len(kept) == 168 - 60
    assert np.mean(lowest) == pytest.approx(1.4, abs=0.2)
    assert np.mean(after) == pytest.approx(5.0, abs=0.2)
    # before the outliers go, so counted type by type
    assert np.mean(dedicated) == pytest.approx(46, abs=2)


class Seen:
    """A processor that remembers the tunes asked of it."""

    def __init__(self) -> None:
        self.tunes: list[TuneJob] = []
        self.patches: list[Patch] = []
        inner = current_compute()

        def run(job: Job) -> Result:
            result = inner.run(job)
            if isinstance(job, TuneJob):
                self.tunes.append(job)
                self.patches.append(cast(TuneResult, result).patch)
            return result

        self.compute = Compute(run)


@pytest.fixture(scope="module")
def night() -> tuple[Seen, DeviceState, Report]:
    seen = Seen()
    order = order_for(POLICY, compute=seen.compute)
    return seen, *run_round(order, DeviceState(), observed=True)


def context(facts: Facts = FACTS) -> PlacementContext:
    order = order_for(POLICY, facts=facts)
    found = open_context(order, DeviceState(), order.examples(WORLD.day(3, 0)))
    assert isinstance(found, PlacementContext)
    return found


def one_step(rule: GradCutReleased, layers: int) -> int:
    """How many of a type with all its sites go at once."""
    return len(sites_to_drop({Site(layer, "q"): 1.0 for layer in range(layers)}, layers, rule))


def test_the_released_counts_follow_the_depth_of_the_model() -> None:
    assert LAYERS == 8
    # of 30 layers 22.5, 17.5 and 3.75, half up
    for layers, counts in ((8, (6, 5, 1)), (24, (18, 14, 3)), (30, (23, 18, 4))):
        found = (RULE.keep("q", layers), RULE.keep("up", layers), one_step(RULE, layers))
        assert found == counts
    # 0.25 of two layers is one at least
    assert one_step(replace(RULE, keep_attention=0.1), 2) == 1


def test_phase_1_trains_tied_pairs_everywhere_and_drops_sites_in_steps(
    night: tuple[Seen, DeviceState, Report],
) -> None:
    seen, _, _ = night
    *phase_1, tune = seen.tunes
    # 3 x 5 + 1 steps; sites go after steps 5, 10 and 15, counted from 0
    assert [len(job.batches) for job in phase_1] == [6, 5, 5]
    assert len(tune.batches) == 4
    assert len(phase_1[0].start.ties) == len(MODULES)
    assert not phase_1[0].start.factors
    for module in MODULES:
        counts = [sum(site.module == module for site in job.start.ranks) for job in phase_1]
        assert counts == [8, 7, 6]
    for before, after in zip(seen.patches, phase_1[1:], strict=False):
        for old, new in zip(before.ties, after.start.ties, strict=True):
            assert new.pair is old.pair
            assert all(old.vectors[site] is vectors for site, vectors in new.vectors.items())


def test_what_goes_follows_from_the_trained_vectors(
    night: tuple[Seen, DeviceState, Report],
) -> None:
    seen, _, _ = night
    before, after = seen.patches[0], seen.tunes[1].start
    for tied in before.ties:
        scores = {
            site: float(np.linalg.norm(u) + np.linalg.norm(v))
            for site, (u, v) in tied.vectors.items()
        }
        gone = tied.vectors.keys() - after.ranks.keys()
        assert gone == set(sites_to_drop(scores, LAYERS, RULE))


def test_shared_sites_start_as_phase_1_left_them_and_dedicated_ones_fresh(
    night: tuple[Seen, DeviceState, Report],
) -> None:
    seen, state, _ = night
    learned = {next(iter(tied.vectors)).module: tied for tied in seen.patches[-2].ties}
    start = seen.tunes[-1].start
    assert start.ties
    for tied in start.ties:
        mine = learned[next(iter(tied.vectors)).module]
        assert tied.pair is mine.pair
        assert all(mine.vectors[site] is vectors for site, vectors in tied.vectors.items())
        assert mine.pair.b.any()
    assert start.factors
    assert not any(item.b.any() for item in start.factors.values())
    assert {item.a.shape[0] for item in start.factors.values()} == {4}
    assert state.patch is not None
    assert state.patch.ranks == start.ranks


def test_phase_1_is_charged_as_probing_step_by_step(
    night: tuple[Seen, DeviceState, Report],
) -> None:
    seen, _, report = night
    entries = [
        entry
        for job in seen.tunes[:-1]
        for entry in tune_work(FACTS, RELEASE, job.start.ranks, job.batches, cached=False)
    ]
    flop = sum(amount.flop for _, _, amount in entries)
    ledger = report.statistics.ledger
    assert ledger.of(Stage.PROBE).work_flop == pytest.approx(flop)
    assert report.statistics.tune_steps == 4
    assert ledger.of(Stage.TUNE).work_flop < ledger.of(Stage.PROBE).work_flop


def test_equal_nights_are_equal(night: tuple[Seen, DeviceState, Report]) -> None:
    again, _ = run_round(order_for(POLICY), DeviceState(), observed=False)
    assert again.patch is not None
    assert night[1].patch is not None
    assert again.patch.digest() == night[1].patch.digest()


def test_a_device_without_memory_for_phase_1_trains_nothing() -> None:
    gigabytes = replace(FACTS.profile.ram_gb, value=0.001, low=0.0005)
    small = replace(FACTS, profile=replace(FACTS.profile, ram_gb=gigabytes))
    seen = Seen()
    order = order_for(POLICY, facts=small, compute=seen.compute)
    state, report = run_round(order, DeviceState(), observed=False)
    assert seen.tunes == []
    assert state.patch is None
    assert report.statistics.outcome.reason == "over_memory"
    assert report.statistics.ledger.of(Stage.PROBE).energy_j == 0


def test_it_places_what_the_decision_functions_say() -> None:
    rng = np.random.default_rng(0)
    scores = {Site(n, m): float(rng.uniform()) for n in range(2, LAYERS) for m in MODULES}
    patch = Patch(release=0, alpha=8.0, factors={})
    preparation = Preparation(patch=patch, scores=scores)
    placed = RULE.place(replace(context(), preparation=preparation))
    assert placed == place_survivors(scores, LAYERS, RULE)
    assert why_not(RULE.place(context())) == "untrained"


def test_overshoot_drops_more_and_never_all() -> None:
    released = replace(RULE, overshoot=True, keep_attention=0.1, prune_share=0.5)
    left = {Site(n, "q"): float(n) for n in range(3)}
    assert len(sites_to_drop(left, LAYERS, released)) == 2


def test_it_is_told_apart_and_crosses_the_wire_as_data() -> None:
    assert isinstance(RULE, PreparingRule)
    assert isinstance(RULE, StartingRule)
    assert not isinstance(TopLayers(layers=1, rank=1, alpha=1.0), PreparingRule)
    assert read_policy(to_record(POLICY)) == POLICY


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep_attention": 0.0}, "placement.keep_attention must be > 0 and <= 1, got 0.0"),
        ({"prune_share": 1.5}, "placement.prune_share must be > 0 and <= 1, got 1.5"),
        ({"prune_interval": 0}, "placement.prune_interval must be >= 1, got 0"),
        ({"shared_alpha": 0.1}, "exact in single precision"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(RULE, **changes)


def test_what_a_model_has_no_room_for_is_refused_at_launch() -> None:
    with pytest.raises(ValueError, match="rank must be between 1 and"):
        replace(RULE, shared_rank=5000).check(SHAPES)
    with pytest.raises(ValueError, match="needs 2 layers that share, got 1"):
        RULE.check(replace(SHAPES, layers=1))
