"""Staged roll-out and the decision for everybody: the interval decides, not the estimate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.learning.decision_reports import DecisionReport
from strategies.learning.guidance_rules import ReleaseDecider
from strategies.rollout.forecast import Forecast
from strategies.rollout.intervals import Interval
from strategies.rollout.settings import Budget, RolloutAction, RolloutDecision, RolloutRule

FORECAST = Forecast(
    devices=1000,
    sampled=20,
    retune_rate=Interval(value=0.25, low=0.1, high=0.5),
    energy_j=Interval(value=300.0, low=200.0, high=400.0),
    down_bytes=Interval(value=5e6, low=5e6, high=5e6),
)


@pytest.mark.parametrize(
    ("budget_j", "action", "reason"),
    [
        (400.0, RolloutAction.RELEASE, "energy_j_within_budget"),
        (399.0, RolloutAction.HOLD, "energy_j_may_exceed_budget"),
        (200.0, RolloutAction.HOLD, "energy_j_may_exceed_budget"),
        (199.0, RolloutAction.ROLL_BACK, "energy_j_exceeds_budget"),
    ],
)
def test_the_limits_of_the_interval_decide(
    budget_j: float, action: RolloutAction, reason: str
) -> None:
    rule = RolloutRule(budget=Budget(energy_j=budget_j))
    assert rule.decide(FORECAST) == RolloutDecision(action=action, reasons=(reason,))


def test_the_strongest_action_wins_with_its_own_reasons_alone() -> None:
    budget = Budget(retune_rate=0.05, energy_j=350.0, down_bytes=4e6)
    assert RolloutRule(budget=budget).decide(FORECAST) == RolloutDecision(
        action=RolloutAction.ROLL_BACK,
        reasons=("retune_rate_exceeds_budget", "down_bytes_exceeds_budget"),
    )


def test_a_release_is_rolled_back_only_beyond_the_excess() -> None:
    rule = RolloutRule(budget=Budget(energy_j=150.0), excess=1.5)
    assert rule.decide(FORECAST).action is RolloutAction.HOLD
    assert replace(rule, excess=1.3).decide(FORECAST).action is RolloutAction.ROLL_BACK


def test_a_forecast_that_is_too_wide_holds_a_release() -> None:
    rule = RolloutRule(budget=Budget(energy_j=1e9), widest=0.1)
    assert rule.decide(FORECAST) == RolloutDecision(
        action=RolloutAction.HOLD, reasons=("retune_rate_too_uncertain",)
    )
    assert replace(rule, widest=0.2).decide(FORECAST).action is RolloutAction.RELEASE


def test_without_a_budget_everything_goes_out() -> None:
    assert RolloutRule(budget=Budget()).decide(FORECAST) == RolloutDecision(
        action=RolloutAction.RELEASE, reasons=("no_budget",)
    )


@settings(derandomize=True)
@given(st.floats(0, 1e3), st.floats(0, 1e3))
def test_a_larger_budget_never_asks_for_a_stronger_action(one: float, other: float) -> None:
    strength = list(RolloutAction)
    small, large = (
        RolloutRule(budget=Budget(energy_j=budget_j)).decide(FORECAST).action
        for budget_j in sorted((one, other))
    )
    assert strength.index(large) <= strength.index(small)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"retune_rate": 1.5}, r"budget retune_rate must be <= 1, got 1\.5"),
        ({"energy_j": -1.0}, r"budget energy_j must be finite and >= 0 J, got -1\.0"),
        ({"down_bytes": math.nan}, "budget down_bytes must be finite and >= 0 bytes, got nan"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(**changed)


def test_a_rollout_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="widest must be between 0 and 1, got 0"):
        RolloutRule(budget=Budget(), widest=0.0)
    with pytest.raises(ValueError, match=r"excess must be finite and >= 1 budget, got 0\.5"):
        RolloutRule(budget=Budget(), excess=0.5)


def retuned(gain: float | None, propensity: float = 1.0) -> DecisionReport:
    return DecisionReport(
        release=3, device_class="a", decision="retune", gain=gain, propensity=propensity
    )


def test_everybody_retunes_iff_the_mean_gain_exceeds_the_margin() -> None:
    rule = ReleaseDecider(margin=0.25, min_devices=2)
    above = rule.decide([retuned(0.0), retuned(0.75), retuned(None)])
    assert (above.decision, above.reason) == ("retune", "mean_gain_above_margin")
    assert (above.devices, above.mean_gain) == (2, 0.375)
    within = rule.decide([retuned(0.0), retuned(0.5)])
    assert (within.decision, within.reason) == ("reuse", "mean_gain_within_margin")


def test_the_mean_stands_for_all_devices_of_the_cohort() -> None:
    # one that retuned by chance of a quarter stands for four: (1 + 4 * 0) / 5
    found = ReleaseDecider(margin=0.25, min_devices=2).decide([retuned(1.0), retuned(0.0, 0.25)])
    assert (found.decision, found.mean_gain) == ("reuse", 0.2)


def test_too_few_gains_leave_everybody_as_they_are() -> None:
    rule = ReleaseDecider(margin=0.0)
    few = rule.decide([retuned(1.0)] * 9)
    assert (few.decision, few.reason, few.mean_gain) == ("reuse", "too_few_gains", 1.0)
    assert rule.decide([retuned(1.0)] * 10).decision == "retune"
    assert rule.decide([]).mean_gain is None


def test_the_order_of_a_cohort_changes_no_bit() -> None:
    cohort = [retuned(place / 7, 1 / (1 + place % 3)) for place in range(20)]
    rule = ReleaseDecider(margin=0.5)
    assert rule.decide(cohort) == rule.decide(cohort[::-1])


def test_one_release_at_a_time_and_sensible_limits() -> None:
    with pytest.raises(ValueError, match=r"one release, got \[3, 4\]"):
        ReleaseDecider(margin=0.0).decide([retuned(1.0), replace(retuned(1.0), release=4)])
    with pytest.raises(ValueError, match="margin must be finite, in nats per token, got inf"):
        ReleaseDecider(margin=math.inf)
    with pytest.raises(ValueError, match="min_devices must be >= 1, got 0"):
        ReleaseDecider(margin=0.0, min_devices=0)
    with pytest.raises(ValueError, match=r"max_weight must be finite and >= 1, got 0\.5"):
        ReleaseDecider(margin=0.0, max_weight=0.5)
