"""Rules of guidance: settings out of range are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.strategies.learning.test_arm_learning import FITTED


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prior_kappa": 0.0}, "prior_kappa must be finite and > 0, got 0.0"),
        ({"prior_slope": -1.0}, "prior_slope must be finite and > 0 log odds per decade"),
        ({"explore": 1.5}, "explore must be a share from 0 to 1, got 1.5"),
        ({"false_reuse_cost": 0.0}, "false_reuse_cost must be finite and > 0, got 0.0"),
        ({"min_explored": 0}, "min_explored must be >= 1 device, got 0"),
        ({"max_weight": 0.5}, "max_weight must be finite and >= 1, got 0.5"),
        ({"margin": float("nan")}, "margin must be finite"),
    ],
)
def test_settings_out_of_range_are_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FITTED, **changed)  # pyright: ignore[reportArgumentType] - fields by name
