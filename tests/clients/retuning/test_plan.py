"""Plans of a tune: what is hindered and why, and what the priced model has no room for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clients.adaptation.rules import AlwaysRetune
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota
from clients.retuning.plan import open_context, plan_tune
from clients.selection.rules import Fifo
from clients.state.state import DeviceState
from clients.synthesis.rules import NoSynthesis
from clients.tuning.context import Hindered
from clients.tuning.plan import TunePlan
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.cost.hardware import load_hardware
from fleettune.cost.ledger import Stage
from fleettune.cost.pricing import PricedModel
from fleettune.cost.workload import Phase
from fleettune.data.tokens import Example
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Shapes
from tests.clients.phone import order_for, why_not

SHAPES = Shapes(hidden=8, layers=32, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16)
RELEASE = Manifest(
    version=0,
    name="deep",
    path="",
    digest="",
    size_bytes=10,
    shapes=SHAPES,
    template="pocket",
    max_tokens=64,
)
EXAMPLES = (Example(tokens=(1, 2, 3, 4), prompt=2), Example(tokens=(1, 2, 5), prompt=2))
FACTS = Facts(
    device=0,
    user=0,
    seed=0,
    profile=load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["meizu_21"],
)
POLICY = DevicePolicy(
    selection=Fifo(),
    synthesis=NoSynthesis(),
    adaptation=AlwaysRetune(),
    placement=TopLayers(layers=31, rank=1, alpha=2.0),
    tuning=Tuning(steps=3, batch=2, learning_rate=1e-2, clip=1.0, prefix_cache=True),
    quota=Quota(buffer_bytes=1000, total_bytes=10**6),
)


def planned(policy: DevicePolicy, *, facts: Facts = FACTS) -> TunePlan | Hindered:
    order = order_for(policy, RELEASE, facts=facts)
    return plan_tune(policy.placement, open_context(order, DeviceState(), EXAMPLES))


@pytest.mark.parametrize(
    ("model", "layers", "cached"),
    [
        # layers 1 to 31 of 32 are layers 0 to 15 of 16, 30 and 31 are layer 15 alone
        ("own", 31, True),
        ("llama-3.2-1b", 31, False),
        ("llama-3.2-1b", 2, True),
    ],
)
def test_a_cache_is_kept_only_where_the_priced_model_has_layers_below(
    model: str, layers: int, cached: bool
) -> None:
    facts = replace(FACTS, priced=PricedModel(model=model))
    policy = replace(POLICY, placement=TopLayers(layers=layers, rank=1, alpha=2.0))
    plan = planned(policy, facts=facts)
    assert isinstance(plan, TunePlan)
    # two bytes for each of 8 numbers of 4 + 3 tokens
    assert plan.cache_bytes == (2 * 8 * 7 if cached else 0)
    moved = {phase for stage, phase, _ in plan.entries if stage is Stage.TUNE}
    assert ({Phase.READ, Phase.WRITE} <= moved) == cached
    assert plan.tokens == 3 * 7
    assert [len(batch) for batch in plan.batches] == [2, 2, 2]


def test_what_hinders_a_tune_is_named_in_one_word() -> None:
    tight = replace(POLICY, quota=Quota(buffer_bytes=1, total_bytes=100))
    assert why_not(planned(tight)) == "patch_over_quota"
    large = replace(FACTS, priced=PricedModel(model="llama-3.2-3b"))
    ram_gb = replace(FACTS.profile.ram_gb, value=1.0, low=1.0)
    large = replace(large, profile=replace(FACTS.profile, ram_gb=ram_gb))
    assert why_not(planned(POLICY, facts=large)) == "over_memory"
