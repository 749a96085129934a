"""Staging: the settings of a roll-out in stages (`strategies.rollout.stages`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleettune.records import OMIT_DEFAULT
from strategies.aggregation.fleet_patch import NONE
from strategies.rollout.first_cohort import cohort_size
from strategies.rollout.forecast import FEWEST_DEVICES
from strategies.rollout.settings import Budget, StagedRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Unstaged:
    """Releases go to everybody at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A first cohort gets every release, and a budget says who else does.

    Attributes:
        share: Share of the devices in a first cohort.
        least: Fewest devices in it; fewer than 8 present ones allow no forecast.
        retune_rate: As `strategies.rollout.settings.Budget`.
        energy_j: As there.
        down_bytes: As there.
        widest: As `strategies.rollout.settings.StagedRollout`.
        excess: As there.
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
        _ = self.rule

    @property
    def rule(self) -> StagedRollout:
        """What happens after a forecast."""
        budget = Budget(
            retune_rate=self.retune_rate, energy_j=self.energy_j, down_bytes=self.down_bytes
        )
        return StagedRollout(budget=budget, widest=self.widest, excess=self.excess)


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
