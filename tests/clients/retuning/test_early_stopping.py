"""Early stopping: computed whole and cut afterwards, equal to a device that really stops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.device import run_round
from clients.night.order import NightOrder
from clients.placement.gradcut import GradCut
from clients.placement.rules import EverySite, PlacementRule, TopLayers, prepare
from clients.policy import DevicePolicy
from clients.retuning.early_stopping import held_loss, is_over, run_tune
from clients.retuning.plan import open_context, plan_tune, split_holdout
from clients.state.state import DeviceState
from clients.synthesis.rules import TemplateRewrite
from clients.tuning.context import PlacementContext, Preparation
from clients.tuning.first_patch import new_start
from clients.tuning.footprint import joules
from clients.tuning.plan import TunePlan
from clients.tuning.schedule import Tuning
from clients.work.stage_work import tune_work, validation_work
from fleettune.adapters.factors import Tie
from fleettune.adapters.patch import Patch, to_arrays
from fleettune.cohort.suspension import current_compute
from fleettune.cost.ledger import Stage
from fleettune.cost.workload import Phase
from fleettune.data.personas import SyntheticData
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, TuneJob
from fleettune.shapes import Site
from tests.clients.phone import FACTS, RELEASE, SHAPES, nightly, order_for

LONG = SyntheticData(users=10, exchanges_per_day=3, history_days=6).open()
# a rate so high that the held-out loss of a few layers soon rises again
TUNING = Tuning(
    steps=None, epochs=5, batch=4, learning_rate=3e-2, clip=1.0, holdout=0.3, patience=1
)
TOP = TopLayers(layers=3, rank=4, alpha=8.0)


def policy(tuning: Tuning = TUNING, rule: PlacementRule = TOP) -> DevicePolicy:
    return nightly(rule, tuning=tuning)


def night_order(tuning: Tuning = TUNING, rule: PlacementRule = TOP) -> NightOrder:
    return order_for(policy(tuning, rule), population=LONG)


def context(chosen: DevicePolicy) -> PlacementContext:
    order = order_for(chosen)
    examples = order.examples(e for day in range(4) for e in LONG.day(3, day))
    found = open_context(order, DeviceState(), examples)
    assert isinstance(found, PlacementContext)
    return found


def planned(chosen: DevicePolicy) -> TunePlan:
    place = context(chosen)
    preparation = prepare(chosen.placement, place)
    assert isinstance(preparation, Preparation)
    plan = plan_tune(chosen.placement, replace(place, preparation=preparation))
    assert isinstance(plan, TunePlan)
    return plan


def really_stopped(
    plan: TunePlan, tuning: Tuning, start: Patch, compute: Compute
) -> tuple[Patch, int, list[float]]:
    """What a device does that trains to the end of an epoch, looks, and goes on or not."""
    best, losses = start, list[float]()
    for end in plan.held.after:
        job = TuneJob(
            release=RELEASE.path,
            start=start,
            batches=plan.batches[:end],
            learning_rate=tuning.learning_rate,
            clip=tuning.clip,
        )
        patch = compute.tune(job).patch
        loss = held_loss(RELEASE, patch, plan.held.examples, compute)
        best = patch if not losses or loss < min(losses) else best
        losses.append(loss)
        if tuning.patience is not None and min(losses[-tuning.patience :]) > min(losses):
            return best, end, losses
    return best, plan.held.after[-1], losses


def assert_close(one: Patch, other: Patch) -> None:
    ours, theirs = to_arrays(one), to_arrays(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        # the same steps; other lengths of passes round differently in the last bits
        np.testing.assert_allclose(array, theirs[name], atol=2e-5, err_msg=name)


SHARING = GradCut(
    rank=4,
    alpha=8.0,
    budget=1.0,
    benefit="gradient",
    probe_rank=2,
    probe_batches=1,
    share_above=0.2,
    prefix_cache=True,
)


@pytest.mark.parametrize("rule", [TOP, SHARING])
@pytest.mark.parametrize("patience", [1, 2, None])
def test_a_tune_ends_with_the_patch_and_at_the_step_where_one_that_really_stops_ends(
    rule: PlacementRule, patience: int | None
) -> None:
    tuning, compute = replace(TUNING, patience=patience), current_compute()
    chosen = policy(tuning, rule)
    plan = planned(chosen)
    assert bool(plan.placement.ties) == (rule is SHARING)
    start = new_start(FACTS, RELEASE, plan.placement, shared=False)
    patch, done = run_tune(plan, start)
    best, steps, losses = really_stopped(plan, tuning, start, compute)
    assert_close(patch, best)
    assert len(done.batches) == steps
    assert done.batches == plan.batches[:steps]
    assert done.held.after == plan.held.after[: len(losses)]
    if rule is TOP and patience == 1:
        assert steps < len(plan.batches)
    if rule is TOP and patience is None:
        assert steps == len(plan.batches)
        assert losses.index(min(losses)) < len(losses) - 1


def test_a_night_is_charged_up_to_its_stop_validations_included() -> None:
    state, report = run_round(night_order(), DeviceState(), observed=True)
    plan = planned_night(state)
    steps, after = report.statistics.tune_steps, plan.held.after
    epochs = after.index(steps) + 1
    assert 0 < epochs < 5
    ranks, held = plan.placement.ranks, plan.held.examples
    asked = [
        *tune_work(FACTS, RELEASE, ranks, plan.batches[:steps], cached=False),
        *validation_work(FACTS, RELEASE, ranks, held, (epochs, False)),
    ]
    flop = sum(amount.flop for _, _, amount in asked)
    assert report.statistics.ledger.of(Stage.TUNE).work_flop == pytest.approx(flop)
    tokens = sum(len(e.tokens) for batch in plan.batches[:steps] for e in batch)
    assert report.statistics.train_tokens == tokens


def planned_night(state: DeviceState) -> TunePlan:
    examples = night_order().examples(state.answered)
    plan = plan_tune(policy().placement, open_context(night_order(), DeviceState(), examples))
    assert isinstance(plan, TunePlan)
    return plan


def test_a_validation_by_hand() -> None:
    place = context(policy())
    ranks = TOP.on(SHAPES).ranks
    held = place.held.examples
    tokens = [len(example.tokens) for example in held]
    head = sum(example.supervised for example in held)
    lower, upper = SHAPES.layers - 3, 3
    per_layer = SHAPES.linear_parameters // SHAPES.layers
    adapters = SHAPES.adapter_parameters(ranks)
    squares = 4 * SHAPES.heads * SHAPES.head_dim * sum(n * n for n in tokens)

    def flop(layers: int, ranked: int, times: int, on_head: int) -> int:
        each = 2 * sum(tokens) * (layers * per_layer + ranked) + layers * squares
        return times * (each + 2 * on_head * SHAPES.hidden * SHAPES.vocab)

    plain = validation_work(FACTS, RELEASE, ranks, held, (4, False))
    assert [(phase, a.flop) for _, phase, a in plain] == [
        (Phase.FORWARD, flop(SHAPES.layers, adapters, 4, head))
    ]
    cached = validation_work(FACTS, RELEASE, ranks, held, (4, True))
    size_bytes = 2 * SHAPES.hidden * sum(tokens)
    assert [(phase, a.flop, a.moved_bytes) for _, phase, a in cached[1:]] == [
        (Phase.WRITE, 0, size_bytes),
        (Phase.READ, 0, 4 * size_bytes),
    ]
    assert cached[0][2].flop == flop(lower, 0, 1, 0) + flop(upper, adapters, 4, head)
    assert validation_work(FACTS, RELEASE, ranks, (), (4, True)) == []


def test_a_budget_counts_validations_on_both_sides() -> None:
    rule = replace(SHARING, budget=0.5, share_above=None)
    chosen = policy(replace(TUNING, patience=2), rule)
    place, plan = context(chosen), planned(chosen)
    every = EverySite(rank=4, alpha=8.0).on(SHAPES).ranks
    whole = [
        *tune_work(FACTS, RELEASE, every, place.batches, cached=False),
        *validation_work(FACTS, RELEASE, every, place.held.examples, (5, False)),
    ]
    assert joules(FACTS, plan.entries) <= 0.5 * joules(FACTS, whole) * (1 + 1e-9)
    # the bound of the cut counts them as well: without room for them less would have fitted
    assert plan.cache_bytes == 0 or plan.cache_bytes > 2 * SHAPES.hidden * sum(
        len(example.tokens) for example in place.held.examples
    )


def test_what_is_held_out_is_not_trained_on_nor_reworded() -> None:
    synthesis = TemplateRewrite(per_exchange=2, rouge_low=0.0, rouge_high=1.0)
    chosen = replace(policy(), synthesis=synthesis)
    seen: list[TuneJob] = []
    inner = current_compute()

    def run(job: object) -> object:
        if isinstance(job, TuneJob):
            seen.append(job)
        return inner.run(job)  # type: ignore[arg-type]

    night = order_for(chosen, population=LONG, compute=Compute(run))  # type: ignore[arg-type]
    state, report = run_round(night, DeviceState(), observed=False)
    assert report.statistics.synthetic_kept > 0
    plan = planned_night(state)
    trained = {example for batch in seen[0].batches for example in batch}
    encoder = FACTS.encoder(RELEASE)
    answers = [encoder.example(exchange) for exchange in state.answered]
    kept, held = split_holdout(night_order(), answers)
    assert held == plan.held.examples
    # a user who says the same thing twice may have one on either side
    assert trained & set(answers) <= set(kept)
    assert not set(kept) >= set(held)
    made = trained - set(answers)
    assert 0 < len(made) <= 2 * len(kept)
    assert {reply(one) for one in made} <= {reply(one) for one in kept}


def reply(example: Example) -> tuple[int, ...]:
    return example.tokens[example.prompt :]


def test_when_patience_is_over() -> None:
    assert not is_over([3.0], 1)
    assert not is_over([3.0, 2.0], 1)
    assert is_over([3.0, 2.0, 2.0], 1)
    assert not is_over([3.0, 2.0, 2.5], 2)
    assert is_over([3.0, 2.0, 2.5, 2.5], 2)
    assert not is_over([3.0, 4.0, 5.0], None)


def test_without_a_holdout_nothing_is_scored_and_the_last_patch_is_kept() -> None:
    tuning = replace(TUNING, holdout=0.0, patience=None, epochs=2)
    plan = planned(policy(tuning))
    assert plan.held.after == ()
    assert {phase for _, phase, _ in plan.entries} == {Phase.FORWARD, Phase.BACKWARD}
    tie = Tie(sites=(Site(6, "q"), Site(7, "q")), rank=2, alpha=4.0)
    tied = replace(plan, placement=replace(plan.placement, sites=(), ties=(tie,)))
    for each in (plan, tied):
        start = new_start(FACTS, RELEASE, each.placement, shared=False)
        patch, done = run_tune(each, start)
        assert done is each
        assert patch.ranks == each.placement.ranks
