"""Baselines: periods are counted, rates hold, everybody does what was decided for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.adaptation.baselines import Oracle, Periodic, PerRelease, RandomAtRate
from clients.adaptation.decision import Action, PatchHistory
from clients.adaptation.device_view import DeviceView
from clients.adaptation.protocol import KeptOut
from clients.work.facts import Facts
from fleettune.adapters.patch import Factors, Patch
from fleettune.backbone.causal_lm import resolve_folder
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.releases.guidance import Guidance
from fleettune.releases.manifest import Drift, Manifest, Moments, SiteDrift
from fleettune.shapes import Shapes, Site

FACTS = Facts(
    device=0,
    user=0,
    seed=0,
    profile=load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["meizu_21"],
)
MOVED = SiteDrift(layer=0, module="v", drift=Moments(count=4, squares=4.0, fourths=4.0))
RELEASE = Manifest(
    version=1,
    name="new",
    path="nowhere",
    digest="",
    size_bytes=1,
    shapes=Shapes(hidden=2, layers=1, heads=1, kv_heads=1, head_dim=2, ffn=2, vocab=4),
    template="plain",
    max_tokens=8,
    drifts=(Drift(since=0, sites=(MOVED,)),),
)
ONE = np.ones((2, 2), dtype=np.float32)
PATCH = Patch(release=0, alpha=1.0, factors={Site(0, "v"): Factors(a=ONE, b=ONE)})


def seen(release: Manifest, facts: Facts = FACTS) -> DeviceView:
    return DeviceView(
        facts=facts,
        release=release,
        patch=PATCH,
        before=None,
        canaries=(),
        history=PatchHistory(),
        compute=current_compute(),
    )


def drawn(rate: float, device: int, version: int = 1, seed: int = 0) -> bool:
    facts = replace(FACTS, device=device, seed=seed)
    view = seen(replace(RELEASE, version=version), facts)
    decision = RandomAtRate(rate=rate).decide(view)
    assert decision.propensity == rate
    return decision.action is Action.RETUNE


def test_every_third_release_since_the_patchs_own_is_tuned_on() -> None:
    rule, patch, tuned = Periodic(every=3), PATCH, list[int]()
    for version in range(1, 10):
        decision = rule.decide(replace(RELEASE, version=version), patch)
        if decision.action is Action.RETUNE:
            tuned.append(version)
            patch = replace(patch, release=version)
    assert tuned == [3, 6, 9]


def test_releases_that_a_device_slept_through_count() -> None:
    rule = Periodic(every=2)
    assert rule.decide(replace(RELEASE, version=1), PATCH).action is Action.REUSE
    late = rule.decide(replace(RELEASE, version=5), PATCH)
    assert (late.action, late.score) == (Action.RETUNE, 5.0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_retunes_is_the_rate(rate: float) -> None:
    count = sum(drawn(rate, device) for device in range(2000))
    # four standard deviations of a binomial count: missed once in 16,000
    assert abs(count - 2000 * rate) <= 4 * (2000 * rate * (1 - rate)) ** 0.5


def test_a_rate_of_nothing_and_of_everything() -> None:
    assert not any(drawn(0.0, device) for device in range(50))
    assert all(drawn(1.0, device) for device in range(50))


def test_a_devices_draw_depends_on_itself_and_on_the_release_alone() -> None:
    alone = [drawn(0.5, device) for device in range(200)]
    assert [drawn(0.5, device) for device in reversed(range(200))] == alone[::-1]
    # who retunes at a small rate retunes at a large one: one number, compared with the rate
    assert all(drawn(0.5, device) for device in range(200) if drawn(0.2, device))
    # neither neighbours nor releases are alike: half of them agree, within four deviations
    for other in (alone[1:] + alone[:1], [drawn(0.5, device, 2) for device in range(200)]):
        agreeing = sum(one == two for one, two in zip(alone, other, strict=True))
        assert abs(agreeing - 100) <= 4 * 50**0.5


@pytest.mark.parametrize("told", ["reuse", "retune"])
def test_what_the_server_decided_is_done_whatever_the_drift(told: str) -> None:
    for kappa in (1e-9, 1e9):
        rule = PerRelease(kappa=kappa, k_var=0.0, nominal_strength=1.0)
        decision = rule.decide(seen(replace(RELEASE, guidance=Guidance(decision=told))))
        assert (decision.action.value, decision.reason) == (told, "told_by_server")
        assert decision.drift is None


def test_only_a_per_release_rule_with_canaries_explores_where_everybody_is_to_reuse() -> None:
    plain = PerRelease(kappa=0.5, k_var=0.0, nominal_strength=1.0)
    measured = replace(plain, canary_share=0.2)
    assert (plain.traits.kept_out, measured.traits.kept_out) == (None, KeptOut(share=0.2, most=8))
    folder = str(resolve_folder("pocket"))
    told = replace(
        RELEASE, path=folder, template="pocket", guidance=Guidance(decision="reuse", explore=1.0)
    )
    decision = plain.decide(seen(told))
    assert (decision.action, decision.explored) == (Action.REUSE, None)
    decision = measured.decide(seen(told))
    assert (decision.action, decision.reason) == (Action.RETUNE, "explored")
    assert (decision.explored, decision.propensity) == (1, 1.0)
    never = replace(RELEASE, guidance=Guidance(decision="reuse"))
    decision = measured.decide(seen(never))
    assert (decision.action, decision.propensity, decision.passes) == (Action.REUSE, 0.0, ())


@pytest.mark.parametrize("guidance", [None, Guidance()])
def test_without_a_decision_drift_over_the_nominal_strength_decides(
    guidance: Guidance | None,
) -> None:
    # squares 1 1 1 1: drift 1, over a nominal strength of 2
    new = replace(RELEASE, guidance=guidance)
    for kappa, action in ((0.5, Action.REUSE), (0.49, Action.RETUNE)):
        rule = PerRelease(kappa=kappa, k_var=0.25, nominal_strength=2.0)
        decision = rule.decide(seen(new))
        assert (decision.action, decision.score) == (action, 0.5)
        # whatever a device's own patch is
        assert rule.decide(replace(seen(new), patch=replace(PATCH, alpha=99.0))) == decision


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Periodic, {"every": 0}, "every must be >= 1 release, got 0"),
        (RandomAtRate, {"rate": 1.5}, "rate must be a share from 0 to 1, got 1.5"),
        (Oracle, {"margin": -1.0, "days": 1}, "margin must be >= 0 nats per token, got -1.0"),
        (Oracle, {"margin": 0.0, "days": 0}, "days must be >= 1 day, got 0"),
        (
            PerRelease,
            {"kappa": 0.5, "k_var": 0.0, "nominal_strength": 0.0},
            "nominal_strength must be > 0, got 0.0",
        ),
        (
            PerRelease,
            {"kappa": 0.5, "k_var": -0.1, "nominal_strength": 1.0},
            "k_var must be >= 0, got -0.1",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    kind: type, fields: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**fields)


@pytest.mark.parametrize("start", ["fresh", "old"])
def test_a_rivals_retune_starts_from_what_is_asked_for(start: str) -> None:
    told = replace(RELEASE, guidance=Guidance(decision="retune"))
    decisions = [
        Periodic(every=1, start=start).decide(RELEASE, PATCH),
        RandomAtRate(rate=1.0, start=start).decide(seen(RELEASE)),
        PerRelease(kappa=1e-9, k_var=0.0, nominal_strength=1.0, start=start).decide(seen(RELEASE)),
        PerRelease(kappa=9.0, k_var=0.0, nominal_strength=1.0, start=start).decide(seen(told)),
        Oracle(margin=0.0, days=1, start=start).decide(RELEASE, PATCH),
    ]
    assert {(one.action, one.start) for one in decisions} == {(Action.RETUNE, start)}


def test_a_start_that_no_rule_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="start must be one of"):
        Periodic(every=1, start="oldest")
