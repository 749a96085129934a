"""Fleets: the devices' own configuration, made of what a run is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fleettune.cost.radio import read_link
from fleettune.fleet.availability import Availability
from fleettune.fleet.recorded_traces import Trace
from fleettune.fleet.registry import Fleet, FleetData
from fleettune.messages.report import Writing
from simulations.experiment.mixes import mix_of
from simulations.experiment.settings import CostSettings, FleetSettings, Run
from simulations.experiment.targets import configured


def fleet_of(
    plain: Mapping[str, Any],
    run: Run,
    settings: FleetSettings,
    data: FleetData,
    cost: CostSettings,
    installed: tuple[str, ...],
) -> Fleet:
    """Returns the fleet of a run.

    Args:
        plain: The configuration, of which links and availability are read here.
        run: The run.
        settings: How many devices there are, and of what.
        data: Their users.
        cost: Whose shapes are priced.
        installed: Paths of policies from outside the repository.

    Raises:
        ValueError: If a link, a mix or an availability breaks its rule.
    """
    return Fleet(
        seed=run.seed,
        mix=mix_of(settings),
        data=data,
        installed=installed,
        priced=cost.priced,
        radio=read_link(cast(Mapping[str, object], plain["link"])),
        availability=_availability(plain["availability"]),
        floor=settings.battery_floor,
        deadline_s=settings.deadline_s,
        writing=Writing(answers=run.quality.generate, new_tokens=run.quality.new_tokens),
        foresight=run.quality.foresight,
        joining=settings.joining,
    )


def _availability(node: object) -> Availability:
    availability = cast(Availability, configured(node, "availability"))
    if isinstance(availability, Trace):
        try:
            availability.check()
        except ValueError as error:
            raise ValueError(f"availability: {error}") from error
    return availability
