"""How a release goes out: to everybody at once, or to a first cohort and then by its forecast.

A budget is compared with the forecast's interval, not with its estimate: a release goes out when
even the upper limit is within it, is rolled back when even the lower limit is not, and is held
otherwise, while a larger cohort finds out. Source: docs/methods.md#staged-roll-out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from fleettune.records import OMIT_DEFAULT
from strategies.aggregation.fleet_patch import NONE
from strategies.rollout.forecast import FEWEST_DEVICES, QUANTITIES, Forecast

SHARE = 0.02
"""Of the fleet that receives a release first."""
MINIMUM = 20
"""Devices of the smallest first cohort."""


def cohort_size(devices: int, share: float = SHARE, minimum: int = MINIMUM) -> int:
    """Returns how many devices receive a release first: a share, but no fewer than a minimum.

    Raises:
        ValueError: If an argument is out of range.
    """
    if devices < 1:
        raise ValueError(f"devices must be >= 1, got {devices}")
    if not 0 < share <= 1:
        raise ValueError(f"share of a first cohort must be > 0 and <= 1, got {share}")
    if minimum < 1:
        raise ValueError(f"minimum of a first cohort must be >= 1 device, got {minimum}")
    # without the hair 0.07 * 100 would ask for 8
    return min(devices, max(minimum, math.ceil(share * devices * (1 - 1e-12))))


class RolloutAction(StrEnum):
    """What happens with a release, from the mildest to the strongest."""

    RELEASE = "release"
    HOLD = "hold"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDecision:
    """What happens with a release, and why.

    Attributes:
        action: What happens.
        reasons: One per quantity that asks for it, as a lower-case word with underscores.
    """

    action: RolloutAction
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unstaged:
    """Releases go to everybody at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A first cohort gets every release, and a budget of the whole fleet says who else does.

    Attributes:
        share: Share of the devices in a first cohort.
        least: Fewest devices in it; fewer than 8 present ones allow no forecast.
        retune_rate: Share of the devices that may retune, from 0 to 1; None is no limit.
        energy_j: Joules that all devices may spend (simulated); None is no limit.
        down_bytes: Bytes that all devices may receive; None is no limit.
        widest: Largest half-width of the retune rate's interval with which a release goes out; None
            for any.
        excess: A release is rolled back where a lower limit is above so many budgets, 1 or more.
        cohort_retunes: Whether guidance tells cohorts to retune, and the others what those gained.
            Rules that decide on the device do not listen; of one that does, the forecast is that of
            everybody retuning.
        recalls: Whether a cohort goes back to the release before where its own is rolled back;
            else it keeps what it has until the next release.

    Raises:
        ValueError: If a value breaks its rule.
    """

    share: float
    least: int
    retune_rate: float | None
    energy_j: float | None
    down_bytes: float | None
    widest: float | None
    excess: float
    cohort_retunes: bool
    recalls: bool = field(default=False, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.least < FEWEST_DEVICES:
            raise ValueError(f"least must be >= {FEWEST_DEVICES} devices, got {self.least}")
        cohort_size(self.least, self.share, self.least)
        for name, unit in zip(QUANTITIES, ("", " J", " bytes"), strict=True):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"budget {name} must be finite and >= 0{unit}, got {value}")
        if self.retune_rate is not None and self.retune_rate > 1:
            raise ValueError(f"budget retune_rate must be <= 1, got {self.retune_rate}")
        if self.widest is not None and not 0 < self.widest < 1:
            raise ValueError(f"widest must be between 0 and 1, got {self.widest}")
        if not 1 <= self.excess < math.inf:
            raise ValueError(f"excess must be finite and >= 1 budget, got {self.excess}")

    def decide(self, forecast: Forecast) -> RolloutDecision:
        """Returns the strongest action that any quantity asks for, with the reasons for it."""
        found = [self._compare(name, forecast) for name in QUANTITIES]
        if self.widest is not None and forecast.retune_rate.half_width > self.widest:
            found.append((RolloutAction.HOLD, "retune_rate_too_uncertain"))
        strength = list(RolloutAction)
        action = max((action for action, _ in found), key=strength.index)
        reasons = tuple(reason for asked, reason in found if asked is action and reason)
        return RolloutDecision(action=action, reasons=reasons or ("no_budget",))

    def _compare(self, name: str, forecast: Forecast) -> tuple[RolloutAction, str]:
        """Returns what one quantity's interval asks for beside its budget."""
        limit, interval = getattr(self, name), getattr(forecast, name)
        if limit is None:
            return RolloutAction.RELEASE, ""
        if interval.low > self.excess * limit:
            return RolloutAction.ROLL_BACK, f"{name}_exceeds_budget"
        if interval.high > limit:
            return RolloutAction.HOLD, f"{name}_may_exceed_budget"
        return RolloutAction.RELEASE, f"{name}_within_budget"


Staging = Unstaged | Staged
"""What a plan may name."""


def check_staging(staging: Staging, every: int, fleet_patch: str) -> None:
    """Checks that stages fit what goes out.

    Args:
        staging: How releases go out.
        every: Nights between two releases.
        fleet_patch: Whether devices get the fleet patch.

    Raises:
        ValueError: If no night is left for the others, or a patch of one release would reach
            devices that have another.
    """
    if isinstance(staging, Unstaged):
        return
    if every < 2:
        raise ValueError(f"rollout=staged needs release.every >= 2 nights, got {every}")
    if fleet_patch != NONE:
        raise ValueError(f"rollout=staged needs fleet_patch={NONE}, got {fleet_patch}")
