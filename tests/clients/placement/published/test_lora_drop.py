"""LoRA-drop: output norms as torch finds them, thresholds by hand, a night that pays for both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from clients.device import run_round
from clients.placement.published.lora_drop import LoraDrop
from clients.placement.rules import EverySite, PreparingRule
from clients.policy import read_policy
from clients.retuning.plan import open_context
from clients.state.state import DeviceState
from clients.work.stage_work import tune_work, validation_work
from fleettune.adapters.factors import Factors, Tie
from fleettune.adapters.patch import Patch, Placement, new_patch, peft_name
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER
from fleettune.cohort.execute import execute
from fleettune.cost.ledger import Stage
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import OutputNormJob, OutputNormResult
from fleettune.records import to_record
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Site
from tests.clients.phone import FACTS, RELEASE, SHAPES, WORLD, nightly, order_for, why_not

RULE = LoraDrop(rank=2, alpha=4.0, warm_up_steps=3, threshold=0.6)
POLICY = nightly(RULE)


def examples() -> list[Example]:
    return list(order_for(POLICY).examples(WORLD.day(3, 0)))


def trained(key: int) -> Patch:
    placement = Placement(
        sites=(Site(1, "q"), Site(6, "down")),
        rank=2,
        alpha=4.0,
        ties=(Tie(sites=(Site(2, "up"), Site(5, "up")), rank=3, alpha=6.0),),
    )
    rng = stream(key, Purpose.ADAPTER)
    fresh = new_patch(placement, SHAPES, 0, rng)

    def drawn(item: Factors) -> Factors:
        return Factors(a=item.a, b=rng.normal(0, 0.3, item.b.shape).astype(np.float32))

    ties = tuple(replace(tied, pair=drawn(tied.pair)) for tied in fresh.ties)
    return replace(fresh, factors={s: drawn(f) for s, f in fresh.factors.items()}, ties=ties)


def by_torch(patch: Patch, seen: list[Example]) -> dict[Site, float]:
    """Output norms from forward hooks on the model of transformers, one example at a time."""
    model = LlamaForCausalLM.from_pretrained(POCKET_V1_FOLDER, dtype=torch.float32)
    plain, found = patch.untie(), dict[Site, float]()

    def hook(site: Site) -> None:
        update = torch.tensor(plain.dense(site))

        def added(_: object, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
            mine = given[0] @ update.t()
            found[site] = found.get(site, 0.0) + float(mine.square().sum())
            return out + mine

        model.get_submodule(peft_name(site)).register_forward_hook(added)

    for site in plain.factors:
        hook(site)
    with torch.no_grad():
        for example in seen:
            model(input_ids=torch.tensor([example.tokens]))
    return found


def test_output_norms_are_those_of_torch_for_every_device_of_a_pass() -> None:
    seen = examples()
    jobs = [
        OutputNormJob(release=str(POCKET_V1_FOLDER), patch=trained(1), examples=tuple(seen)),
        OutputNormJob(release=str(POCKET_V1_FOLDER), patch=trained(2), examples=tuple(seen[:1])),
    ]
    for job, result in zip(jobs, execute(jobs), strict=True):
        assert isinstance(result, OutputNormResult)
        # fp32 sums in another order
        assert result.squares == pytest.approx(by_torch(job.patch, list(job.examples)), rel=1e-4)
    with pytest.raises(ValueError, match="outputs need an adapter and an example, got 4 adapters"):
        replace(jobs[0], examples=())


def test_the_most_important_sites_stay_dedicated_by_hand() -> None:
    # of q 5 + 3 of 10 are the first to hold 0.6; of up the first alone is
    values = {"q": (5.0, 1.0, 3.0, 1.0), "up": (1.0, 8.0, 0.5, 0.5), "v": (1.0, 1.0, 1.0, 0.0)}
    scores = {Site(n, m): value for m, row in values.items() for n, value in enumerate(row)}
    placed = RULE.place_by_scores(scores)
    assert placed.sites == (
        *(Site(0, "q"), Site(0, "v"), Site(1, "v"), Site(1, "up")),
        Site(2, "q"),
    )
    assert {tie.sites for tie in placed.ties} == {
        (Site(1, "q"), Site(3, "q")),
        (Site(2, "v"), Site(3, "v")),
        (Site(0, "up"), Site(2, "up"), Site(3, "up")),
    }
    # one that is left alone has nobody to share with
    equal = {Site(n, "q"): 1.0 for n in range(3)}
    assert replace(RULE, threshold=0.99).place_by_scores(equal).ties == ()
    nothing = RULE.place_by_scores({Site(n, "q"): 0.0 for n in range(3)})
    assert len(nothing.sites) == 3


def test_a_night_pays_for_its_short_tune_and_its_look() -> None:
    state, report = run_round(order_for(POLICY), DeviceState(), observed=True)
    assert state.patch is not None
    assert state.patch.ranks.keys() == {Site(n, m) for n in range(8) for m in MODULES}
    assert state.patch.ties
    encoder = FACTS.encoder(RELEASE)
    seen = [encoder.example(exchange) for exchange in state.answered]
    short = replace(POLICY.tuning, steps=3)
    batches = short.batches(seen, stream(FACTS.seed, Purpose.PLACEMENT, FACTS.device, 0, 1))
    ranks = EverySite(rank=2, alpha=4.0).on(SHAPES).ranks
    asked = [
        *tune_work(FACTS, RELEASE, ranks, batches, cached=False),
        *validation_work(FACTS, RELEASE, ranks, seen, (1, False)),
    ]
    flop = sum(amount.flop for _, _, amount in asked)
    assert report.statistics.ledger.of(Stage.PROBE).work_flop == pytest.approx(flop)
    assert report.statistics.tune_steps == 4


def test_without_memory_for_every_site_there_is_no_tune() -> None:
    gigabytes = replace(FACTS.profile.ram_gb, value=0.001, low=0.0005)
    small = replace(FACTS, profile=replace(FACTS.profile, ram_gb=gigabytes))
    place = open_context(order_for(POLICY, facts=small), DeviceState(), examples())
    assert why_not(RULE.prepare(place)) == "over_memory"
    assert why_not(RULE.place(place)) == "untrained"


def test_it_is_a_rule_that_trains_and_crosses_the_wire() -> None:
    assert isinstance(RULE, PreparingRule)
    assert read_policy(to_record(POLICY)) == POLICY
    for changes, said in (
        ({"warm_up_steps": 0}, "warm_up_steps must be >= 1, got 0"),
        ({"threshold": 0.0}, "threshold must be > 0 and <= 1, got 0.0"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(RULE, **changes)
    with pytest.raises(ValueError, match="rank must be between 1 and"):
        replace(RULE, rank=5000).check(SHAPES)
