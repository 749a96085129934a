"""Budgets of joules: never exceeded, with pairs, probes and validations; and their ablations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.placement.gradcut import GradCut
from clients.placement.rules import EverySite
from clients.policy import DevicePolicy
from clients.retuning.plan import open_context, plan_tune
from clients.retuning.synthetic_pairs import add_pairs
from clients.state.state import DeviceState
from clients.synthesis.rules import TemplateRewrite
from clients.tuning.context import Hindered, PlacementContext
from clients.tuning.first_patch import new_start
from clients.tuning.footprint import joules, memory_bytes, peak_bytes
from clients.tuning.plan import TunePlan
from clients.tuning.schedule import Tuning
from clients.work.stage_work import tune_work, upload_work, validation_work
from fleettune.cost.pricing import PricedModel
from fleettune.deltas.frames import write_frame
from fleettune.jobs.jobs import ProbeResult
from fleettune.shapes import MODULES, Site
from tests.clients.phone import FACTS as OWN
from tests.clients.phone import HALF as RULE
from tests.clients.phone import RELEASE, SHAPES, WORLD, nightly, order_for, with_probed

FACTS = replace(OWN, priced=PricedModel(model="llama-3.2-1b", tokens_ratio=1.0))
EVERY = EverySite(rank=4, alpha=8.0).on(SHAPES).ranks
SLACK = 1 + 1e-9


def policy(rule: GradCut, tuning: Tuning) -> DevicePolicy:
    return nightly(rule, tuning=tuning)


def found_by_chance(seed: int) -> ProbeResult:
    """What a probe might find: log-normal benefits, so that few sites are worth much."""
    rng = np.random.default_rng(seed)
    gradients = {
        Site(layer, module): rng.lognormal(0, 1) * np.ones((2, 2), np.float32)
        for layer in range(SHAPES.layers)
        for module in MODULES
    }
    benefit = {site: float((array**2).sum()) for site, array in gradients.items()}
    return ProbeResult(benefit=benefit, gradients=gradients)


def opened(chosen: DevicePolicy) -> tuple[DeviceState, PlacementContext]:
    exchanges = tuple(e for day in range(3) for e in WORLD.day(3, day))
    state, order = DeviceState(buffer=exchanges), order_for(chosen, facts=FACTS)
    found = open_context(order, state, order.examples(exchanges))
    assert isinstance(found, PlacementContext)
    return state, found


def every_j(plan: TunePlan) -> float:
    """Joules of a plan's own schedule with an adapter at every site and no cache, by hand."""
    held, times = plan.held.examples, len(plan.held.after)
    entries = tune_work(FACTS, RELEASE, EVERY, plan.batches, cached=False)
    return joules(FACTS, [*entries, *validation_work(FACTS, RELEASE, EVERY, held, (times, False))])


schedules = st.sampled_from(
    [
        Tuning(steps=9, batch=2, learning_rate=1e-2, clip=1.0),
        Tuning(steps=None, epochs=1, batch=2, learning_rate=1e-2, clip=1.0),
        Tuning(steps=None, epochs=4, batch=2, learning_rate=1e-2, clip=1.0, holdout=0.25),
    ]
)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.sampled_from([0.3, 0.45, 0.6, 0.8]),
    schedules,
    st.integers(1, 4),
    st.sampled_from([None, 0.7]),
)
def test_a_tune_with_synthetic_pairs_stays_within_the_budget_of_its_own_schedule(
    seed: int,
    budget: float,
    tuning: Tuning,
    pairs: int,
    shared: float | None,
) -> None:
    rule = replace(RULE, budget=budget, share_above=shared, over_budget="refuse")
    chosen = policy(rule, tuning)
    made = TemplateRewrite(per_exchange=pairs, rouge_low=0.0, rouge_high=1.0)
    chosen = replace(chosen, synthesis=made)
    state, place = opened(chosen)
    place = with_probed(place, found_by_chance(seed))
    plan = plan_tune(chosen.placement, place)
    if isinstance(plan, Hindered):
        assert plan.reason == "over_budget"
        return
    longer = add_pairs(order_for(chosen, facts=FACTS), state, plan)
    for each in (plan, longer):
        assert joules(FACTS, each.entries) <= budget * every_j(each) * SLACK
        assert peak_bytes(place, each.placement.ranks) <= memory_bytes(FACTS)
    assert longer.synthetic_kept > 0 or longer.batches == plan.batches


def test_a_placement_that_pairs_make_too_dear_is_made_anew() -> None:
    # five epochs of the buffer share a cache; with pairs each example is seen once and written
    tuning = Tuning(steps=24, batch=2, learning_rate=1e-2, clip=1.0)
    made = TemplateRewrite(per_exchange=4, rouge_low=0.0, rouge_high=1.0)
    moved = 0
    for seed, budget in enumerate((0.4, 0.45, 0.5, 0.55, 0.6, 0.7)):
        rule = replace(RULE, budget=budget, over_budget="refuse")
        chosen = replace(policy(rule, tuning), synthesis=made)
        state, place = opened(chosen)
        place = with_probed(place, found_by_chance(seed))
        plan = plan_tune(chosen.placement, place)
        assert isinstance(plan, TunePlan)
        longer = add_pairs(order_for(chosen, facts=FACTS), state, plan)
        assert joules(FACTS, longer.entries) <= budget * every_j(longer) * SLACK
        moved += longer.placement != plan.placement
    assert moved > 0


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(["smollm2-360m", "qwen2.5-0.5b"]))
def test_half_the_memory_above_the_weights_gets_a_smaller_plan_and_no_failure(
    seed: int, model: str
) -> None:
    whole = replace(FACTS, priced=PricedModel(model=model, tokens_ratio=1.0))
    rule = replace(RULE, budget=1.0)
    tuning = Tuning(steps=9, batch=2, learning_rate=1e-2, clip=1.0)
    chosen, place = policy(rule, tuning), replace(opened(policy(rule, tuning))[1], facts=whole)
    needed = peak_bytes(place, EVERY) / 1e9 / whole.profile.usable_ram.value
    weights = 2 * whole.priced.shapes(SHAPES).parameters / 1e9 / whole.profile.usable_ram.value
    found, sizes = found_by_chance(seed), list[int]()
    for ram_gb in (1.01 * needed, weights + (1.01 * needed - weights) / 2):
        memory = replace(whole.profile.ram_gb, value=ram_gb, low=ram_gb / 2)
        small = replace(place, facts=replace(whole, profile=replace(whole.profile, ram_gb=memory)))
        (job,) = rule.probes(small)
        kept = job.probe.factors.keys()
        seen = ProbeResult(
            benefit={site: found.benefit[site] for site in kept},
            gradients={site: found.gradients[site] for site in kept},
        )
        plan = plan_tune(chosen.placement, with_probed(small, seen))
        assert isinstance(plan, TunePlan)
        assert peak_bytes(small, plan.placement.ranks) <= memory_bytes(small.facts)
        sizes.append(plan.placement.size_bytes(SHAPES))
    assert 0 < sizes[1] < sizes[0]


def test_an_upload_of_shared_pairs_is_smaller_as_priced() -> None:
    tuning = Tuning(steps=24, batch=2, learning_rate=1e-2, clip=1.0)
    sent: list[float] = []
    for share_above in (None, 0.3):
        chosen = policy(replace(RULE, budget=1.0, share_above=share_above), tuning)
        plan = plan_tune(chosen.placement, with_probed(opened(chosen)[1], found_by_chance(3)))
        assert isinstance(plan, TunePlan)
        patch = new_start(FACTS, RELEASE, plan.placement, shared=False)
        assert bool(patch.ties) == (share_above is not None)
        ((_, _, amount),) = upload_work(FACTS, RELEASE, patch, write_frame(patch))
        sent.append(amount.moved_bytes)
    assert sent[1] < 0.7 * sent[0]
