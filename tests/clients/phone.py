"""One phone that holds the built-in model, and how these tests have it tune."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clients.adaptation.edgetune import EdgeTune
from clients.adaptation.rules import AlwaysRetune
from clients.night.order import NightOrder
from clients.placement.gradcut import GradCut
from clients.placement.rules import PlacementRule
from clients.policy import DevicePolicy, Quota
from clients.selection.rules import Fifo
from clients.synthesis.rules import NoSynthesis
from clients.tuning.context import Hindered, PlacementContext, Preparation
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.data.exchanges import Population
from fleettune.data.personas import SyntheticData
from fleettune.jobs.jobs import Compute, ProbeResult
from fleettune.releases.manifest import Manifest

PROFILE = load_hardware(Path(__file__).parents[2] / "conf" / "hardware")["oneplus_12r"]
WORLD = SyntheticData(users=10, exchanges_per_day=3, history_days=4).open()
FACTS = Facts(device=3, user=3, seed=5, profile=PROFILE)
SHAPES = read_shapes(POCKET_V1_FOLDER)
RELEASE = Manifest(
    version=0,
    name="pocket",
    path=str(POCKET_V1_FOLDER),
    digest="",
    size_bytes=2 * SHAPES.parameters,
    shapes=SHAPES,
    template="pocket",
    max_tokens=128,
)
ROOMY = Quota(buffer_bytes=100_000, total_bytes=4_000_000)
EDGETUNE = EdgeTune(
    scope="target_modules",
    threshold="fixed",
    kappa=1e-12,
    k_var=0.25,
    canary=False,
    canary_share=0.3,
    canary_most=4,
    canary_paired=True,
    start="fresh",
)
HALF = GradCut(
    rank=4,
    alpha=8.0,
    budget=0.5,
    benefit="gradient",
    probe_rank=2,
    probe_batches=2,
    share_above=None,
    prefix_cache=True,
)
"""GradCut at half the joules of every site."""


def order_for(
    policy: DevicePolicy,
    release: Manifest = RELEASE,
    *,
    facts: Facts = FACTS,
    population: Population = WORLD,
    compute: Compute | None = None,
) -> NightOrder:
    """The first night of a phone, on a processor of its own."""
    return NightOrder(
        facts=facts,
        round=0,
        release=release,
        policy=policy,
        population=population,
        compute=compute or current_compute(),
    )


def with_probed(context: PlacementContext, *probed: ProbeResult) -> PlacementContext:
    """A context as if probes had found this."""
    return replace(context, preparation=Preparation(probed=probed))


def why_not(found: object) -> str:
    """The reason of something that is hindered."""
    assert isinstance(found, Hindered)
    return found.reason


def nightly(
    placement: PlacementRule, steps: int = 4, tuning: Tuning | None = None, quota: Quota = ROOMY
) -> DevicePolicy:
    """A device that keeps the newest and retunes every night by this placement."""
    return DevicePolicy(
        selection=Fifo(),
        synthesis=NoSynthesis(),
        adaptation=AlwaysRetune(),
        placement=placement,
        tuning=tuning or Tuning(steps=steps, batch=2, learning_rate=1e-2, clip=1.0),
        quota=quota,
    )
