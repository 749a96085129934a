"""Staged roll-out: the interval decides, not the estimate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.rollout.forecast import Forecast
from strategies.rollout.intervals import Interval
from strategies.rollout.rules import RolloutAction, RolloutDecision, Staged

FORECAST = Forecast(
    devices=1000,
    sampled=20,
    retune_rate=Interval(value=0.25, low=0.1, high=0.5),
    energy_j=Interval(value=300.0, low=200.0, high=400.0),
    down_bytes=Interval(value=5e6, low=5e6, high=5e6),
)

UNLIMITED = Staged(
    share=0.02,
    least=8,
    retune_rate=None,
    energy_j=None,
    down_bytes=None,
    widest=None,
    excess=1.0,
    cohort_retunes=False,
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
    rule = replace(UNLIMITED, energy_j=budget_j)
    assert rule.decide(FORECAST) == RolloutDecision(action=action, reasons=(reason,))


def test_the_strongest_action_wins_with_its_own_reasons_alone() -> None:
    rule = replace(UNLIMITED, retune_rate=0.05, energy_j=350.0, down_bytes=4e6)
    assert rule.decide(FORECAST) == RolloutDecision(
        action=RolloutAction.ROLL_BACK,
        reasons=("retune_rate_exceeds_budget", "down_bytes_exceeds_budget"),
    )


def test_a_release_is_rolled_back_only_beyond_the_excess() -> None:
    rule = replace(UNLIMITED, energy_j=150.0, excess=1.5)
    assert rule.decide(FORECAST).action is RolloutAction.HOLD
    assert replace(rule, excess=1.3).decide(FORECAST).action is RolloutAction.ROLL_BACK


def test_a_forecast_that_is_too_wide_holds_a_release() -> None:
    rule = replace(UNLIMITED, energy_j=1e9, widest=0.1)
    assert rule.decide(FORECAST) == RolloutDecision(
        action=RolloutAction.HOLD, reasons=("retune_rate_too_uncertain",)
    )
    assert replace(rule, widest=0.2).decide(FORECAST).action is RolloutAction.RELEASE


def test_without_a_budget_everything_goes_out() -> None:
    assert UNLIMITED.decide(FORECAST) == RolloutDecision(
        action=RolloutAction.RELEASE, reasons=("no_budget",)
    )


@settings(derandomize=True)
@given(st.floats(0, 1e3), st.floats(0, 1e3))
def test_a_larger_budget_never_asks_for_a_stronger_action(one: float, other: float) -> None:
    strength = list(RolloutAction)
    small, large = (
        replace(UNLIMITED, energy_j=budget_j).decide(FORECAST).action
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
        replace(UNLIMITED, **changed)  # pyright: ignore[reportArgumentType] - fields by name


def test_a_rollout_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="widest must be between 0 and 1, got 0"):
        replace(UNLIMITED, widest=0.0)
    with pytest.raises(ValueError, match=r"excess must be finite and >= 1 budget, got 0\.5"):
        replace(UNLIMITED, excess=0.5)
