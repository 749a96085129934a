"""EdgeTune's rule: the released one as a special case, fitted scores, exploration, budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.adaptation.decision import Action, Decision, PatchHistory
from clients.adaptation.device_view import DeviceView
from clients.adaptation.edgetune import EdgeTune
from clients.adaptation.rules import EdgeTuneReleased
from clients.work.facts import Facts
from fleettune.adapters.patch import Factors, Patch
from fleettune.cohort.suspension import current_compute
from fleettune.cost.hardware import load_hardware
from fleettune.releases.guidance import LOG_DRIFT, Guidance
from fleettune.releases.manifest import Drift, Manifest, Moments, SiteDrift
from fleettune.shapes import Shapes, Site

RULE = EdgeTune(
    scope="target_modules",
    threshold="fixed",
    kappa=0.5,
    k_var=0.25,
    canary=False,
    canary_share=0.2,
    canary_most=8,
    canary_paired=False,
    start="fresh",
)
FITTED = replace(RULE, threshold="calibrated", k_var=0.0)
FACTS = Facts(
    device=0,
    user=0,
    seed=0,
    profile=load_hardware(Path(__file__).parents[3] / "conf" / "hardware")["meizu_21"],
)
SHAPES = Shapes(hidden=2, layers=1, heads=1, kv_heads=1, head_dim=2, ffn=2, vocab=4)
V = Site(0, "v")
PATCH = Patch(
    release=0,
    alpha=1.0,
    factors={V: Factors(a=np.array([[2, 0]], np.float32), b=np.array([[1], [0]], np.float32))},
)
"""Strength 1 where k_var is 0: squares 4 0 0 0."""


def release(squares: float, guidance: Guidance | None = None, version: int = 1) -> Manifest:
    """A release whose drift is `squares` over four where k_var is 0."""
    moved = SiteDrift(layer=0, module="v", drift=Moments(count=4, squares=squares, fourths=0.0))
    return Manifest(
        version=version,
        name="new",
        path="nowhere",
        digest="",
        size_bytes=1,
        shapes=SHAPES,
        template="plain",
        max_tokens=8,
        drifts=(Drift(since=0, sites=(moved,)),),
        guidance=guidance,
    )


def decide(rule: EdgeTune, new: Manifest, device: int = 0) -> Decision:
    view = DeviceView(
        facts=replace(FACTS, device=device),
        release=new,
        patch=PATCH,
        before=None,
        canaries=(),
        history=PatchHistory(),
        compute=current_compute(),
    )
    return rule.decide(view)


@settings(derandomize=True, max_examples=50)
@given(squares=st.floats(0, 20), kappa=st.floats(0.01, 10), k_var=st.floats(0, 2))
def test_with_a_fixed_bound_over_all_matrices_it_is_the_released_rule(
    squares: float, kappa: float, k_var: float
) -> None:
    new = release(squares)
    ours = decide(replace(RULE, kappa=kappa, k_var=k_var), new)
    theirs = EdgeTuneReleased(kappa=kappa, k_var=k_var).decide(new, PATCH)
    assert (ours.action, ours.reason) == (theirs.action, theirs.reason)
    assert (ours.drift, ours.strength) == (theirs.drift, theirs.strength)
    assert (ours.read_bytes, ours.work_flop) == (theirs.read_bytes, theirs.work_flop)


def test_what_the_server_fitted_takes_the_place_of_kappa() -> None:
    # drift over strength 0.1: below kappa, and log10 of it is -1
    assert decide(FITTED, release(0.4)).action is Action.REUSE
    for intercept, action in ((3.0, Action.RETUNE), (1.0, Action.REUSE)):
        guidance = Guidance(intercept=intercept, weights=((LOG_DRIFT, 2.0),))
        decision = decide(FITTED, release(0.4, guidance))
        assert decision.score == pytest.approx(1 / (1 + math.exp(2.0 - intercept)))
        assert decision.action is action
        # a fixed bound does not listen
        assert decide(replace(RULE, k_var=0.0), release(0.4, guidance)).score == pytest.approx(0.1)
    high = Guidance(intercept=3.0, weights=((LOG_DRIFT, 2.0),), threshold=0.9)
    assert decide(FITTED, release(0.4, high)).action is Action.REUSE


def test_guidance_that_fitted_nothing_leaves_kappa_and_still_explores() -> None:
    below, above = release(0.4, Guidance(explore=1.0)), release(40.0, Guidance(explore=1.0))
    forced, own = decide(FITTED, below), decide(FITTED, above)
    assert (forced.action, forced.reason) == (Action.RETUNE, "explored")
    assert (forced.explored, forced.propensity) == (1, 1.0)
    assert (own.reason, own.explored, own.propensity) == ("drift_above_threshold", 0, 1.0)


def test_a_share_of_devices_explores_and_says_with_which_probability() -> None:
    new = release(0.4, Guidance(explore=0.2))
    decisions = [decide(FITTED, new, device) for device in range(1000)]
    explored = [one for one in decisions if one.explored]
    # 200 expected, deviation 12.6: four of them
    assert 150 <= len(explored) <= 250
    assert {one.propensity for one in decisions} == {0.2}
    assert all((one.action is Action.RETUNE) == (one.explored == 1) for one in decisions)
    # another release draws anew
    again = [decide(FITTED, replace(new, version=2), device).explored for device in range(1000)]
    assert again != [one.explored for one in decisions]


def test_a_retune_starts_as_the_rule_says_and_a_reuse_starts_nothing() -> None:
    onward = replace(RULE, start="old")
    assert decide(RULE, release(400.0)).start == "fresh"
    assert decide(onward, release(400.0)).start == "old"
    assert decide(onward, release(0.0)).start == "fresh"
    # at random as well
    explored = decide(replace(FITTED, start="old"), release(0.4, Guidance(explore=1.0)))
    assert (explored.explored, explored.start) == (1, "old")


def test_numbers_stay_finite_where_nothing_moved_or_nothing_was_trained() -> None:
    still = decide(FITTED, release(0.0, Guidance(intercept=0.0, weights=((LOG_DRIFT, 1.0),))))
    assert still.score == pytest.approx(math.exp(-12.0), rel=1e-4)
    assert decide(RULE, release(0.0)).score == pytest.approx(1e-12)


def test_a_projection_without_the_old_release_retunes_and_says_so() -> None:
    decision = decide(replace(RULE, scope="projected"), release(0.0))
    assert (decision.action, decision.reason) == (Action.RETUNE, "old_release_gone")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scope": "everything"}, "scope must be one of"),
        ({"threshold": "guessed"}, "threshold must be one of"),
        ({"kappa": 0.0}, "kappa must be > 0, got 0.0"),
        ({"k_var": -1.0}, "k_var must be >= 0, got -1.0"),
        ({"canary": True}, "canary=true needs threshold=calibrated"),
        ({"canary_share": 1.0}, "share of kept-out exchanges must be >= 0 and < 1, got 1.0"),
        ({"canary_share": 0.0, "canary_paired": False}, "paired=false needs a share of kept-out"),
        ({"canary_most": 0}, "most canaries scored must be >= 1 exchange, got 0"),
        ({"start": "fleet"}, "start=fleet is start=fresh in a run with fleet_patch=start"),
        ({"start": "new"}, "start must be one of"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(RULE, **changes)
