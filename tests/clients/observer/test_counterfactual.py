"""Labels of decisions: the arm's own old patch against its own retune, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clients.adaptation.canary import Canary
from clients.adaptation.protocol import AdaptationRule
from clients.adaptation.rules import AlwaysRetune, AlwaysReuse, NeverPersonalise
from clients.device import run_round
from clients.night.attendance import Tonight
from clients.night.order import NightOrder
from clients.observer.evaluation import observe
from clients.placement.rules import TopLayers
from clients.policy import DevicePolicy, Quota
from clients.selection.rules import Fifo
from clients.state.state import DeviceState
from clients.synthesis.rules import NoSynthesis
from clients.tuning.schedule import Tuning
from clients.work.facts import Facts
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.data.personas import SyntheticData
from fleettune.fleet.registry import CounterfactualSettings
from fleettune.messages.flower_records import encode_report, take_observation
from fleettune.messages.report import Report
from fleettune.releases.manifest import Manifest
from tests.clients.phone import EDGETUNE

pytestmark = pytest.mark.usefixtures("one_thread")

PROFILE = load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["oneplus_12r"]
WORLD = SyntheticData(users=10, exchanges_per_day=6, history_days=3).open()
CANARY = Canary(share=0.3, most=4, margin=1e9, paired=False)

FROM_OLD = replace(EDGETUNE, kappa=1e9, start="old")


def night_order(
    release: Manifest, rule: AdaptationRule, round_: int = 0, days: int = 0
) -> NightOrder:
    policy = DevicePolicy(
        selection=Fifo(),
        synthesis=NoSynthesis(),
        adaptation=rule,
        placement=TopLayers(layers=1, rank=2, alpha=4.0),
        tuning=Tuning(steps=4, batch=2, learning_rate=1e-2, clip=1.0),
        quota=Quota(buffer_bytes=100_000, total_bytes=4_000_000),
    )
    facts = Facts(device=3, user=3, seed=5, profile=PROFILE)
    return NightOrder(
        facts=facts,
        round=round_,
        release=release,
        policy=policy,
        population=WORLD,
        compute=current_compute(),
        foresight_days=days,
    )


def live(night: NightOrder, state: DeviceState | None = None) -> tuple[DeviceState, Report]:
    return run_round(night, state or DeviceState(), observed=True)


def gain(report: Report) -> float | None:
    assert report.observation is not None
    return report.observation.retune_gain


def loss(night: NightOrder, state: DeviceState) -> float:
    seen = [observe(night, state, day) for day in (2, 3)]
    return sum((one.nll or 0) * one.exchanges for one in seen) / sum(o.exchanges for o in seen)


@pytest.mark.parametrize(
    "rules",
    [
        (AlwaysReuse(), AlwaysRetune()),
        (FROM_OLD, replace(FROM_OLD, kappa=1e-12)),
    ],
    ids=["anew", "from_old"],
)
def test_a_label_is_what_reuse_loses_against_a_retune_and_the_same_for_both_decisions(
    releases: tuple[Manifest, Manifest], rules: tuple[AdaptationRule, AdaptationRule]
) -> None:
    labels: list[float] = []
    losses: list[float] = []
    for rule in rules:
        state, _ = live(night_order(releases[0], rule))
        night = night_order(releases[1], rule, 1, days=2)
        state, report = live(night, state)
        found = gain(report)
        assert found is not None
        labels.append(found)
        losses.append(loss(night, state))
    # both arms had one history, so they have one label: that of two whole nights
    assert labels[0] == pytest.approx(labels[1], abs=1e-9)
    assert labels[0] == pytest.approx(losses[0] - losses[1], abs=1e-6)


@pytest.mark.parametrize("rule", [AlwaysReuse(), AlwaysRetune(), CANARY], ids=["0", "1", "canary"])
def test_a_label_changes_neither_device_nor_message_nor_cost(
    releases: tuple[Manifest, Manifest], rule: AdaptationRule
) -> None:
    state, _ = live(night_order(releases[0], rule))
    kept, plain = live(night_order(releases[1], rule, 1), state)
    judged, labelled = live(night_order(releases[1], rule, 1, days=1), state)
    assert gain(plain) is None
    assert gain(labelled) is not None
    assert kept.patch is not None
    assert judged.patch is not None
    assert judged.patch.digest() == kept.patch.digest()
    assert replace(judged, patch=None) == replace(kept, patch=None)
    assert labelled.statistics == plain.statistics
    assert labelled.workload == plain.workload
    assert labelled.observation == replace(plain.observation, retune_gain=gain(labelled))  # pyright: ignore[reportArgumentType] - observed
    contents = [encode_report(report) for report in (plain, labelled)]
    for content in contents:
        take_observation(content)
        assert "gain" not in str(content)
        # equal frames may hold their header's fields in another order
        content.pop("delta", None)
    assert contents[0] == contents[1]


def test_there_is_no_label_without_an_old_patch_a_decision_or_a_look_ahead(
    releases: tuple[Manifest, Manifest],
) -> None:
    state, first = live(night_order(releases[0], AlwaysReuse(), days=1))
    assert gain(first) is None  # nothing to reuse yet
    _, same = live(night_order(releases[0], AlwaysReuse(), 1, days=1), state)
    assert gain(same) is None  # no release to decide about
    _, never = live(night_order(releases[1], NeverPersonalise(), 1, days=1), state)
    assert gain(never) is None
    away = replace(night_order(releases[1], AlwaysReuse(), 1, days=1), tonight=Tonight(limit_s=0.0))
    _, cut = live(away, state)
    assert gain(cut) is None


def test_only_the_arms_asked_for_are_judged() -> None:
    asked = CounterfactualSettings(arms=("ours",), days=3)
    assert (asked.days_of("ours"), asked.days_of("other")) == (3, 0)
    assert CounterfactualSettings().days_of("ours") == 0
    with pytest.raises(ValueError, match="counterfactual_days must be >= 1 day, got 0"):
        CounterfactualSettings(days=0)
