"""Builds the devices' own configuration from what a run is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from fleettune.cost.hardware import FleetMix, load_hardware
from fleettune.cost.radio import read_link
from fleettune.data.long_streams import StreamData
from fleettune.data.manners import MannersData
from fleettune.data.personas import SyntheticData
from fleettune.data.style_corpora import CorporaData
from fleettune.data.styles import StyledData
from fleettune.fleet.availability import Availability
from fleettune.fleet.recorded_traces import Trace
from fleettune.fleet.registry import Fleet, FleetData
from fleettune.messages.report import Writing
from simulations.experiment.settings import CostSettings, FleetSettings, RunSettings
from simulations.experiment.targets import build_target


def build_fleet(
    plain: Mapping[str, Any],
    run: RunSettings,
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
        mix=build_mix(settings),
        data=data,
        installed=installed,
        priced=cost.priced,
        radio=read_link(cast(Mapping[str, object], plain["link"])),
        availability=_availability(plain["availability"]),
        floor=settings.battery_floor,
        deadline_s=settings.deadline_s,
        writing=Writing(answers=run.quality.generate, new_tokens=run.quality.new_tokens),
        counterfactual=run.quality.counterfactual_settings,
        joining=settings.joining,
    )


def _availability(node: object) -> Availability:
    availability = cast(Availability, build_target(node, "availability"))
    if isinstance(availability, Trace):
        try:
            availability.check()
        except ValueError as error:
            raise ValueError(f"availability: {error}") from error
    return availability


def name_data(data: FleetData) -> str:
    """Returns a short name."""
    if isinstance(data, SyntheticData):
        return "synthetic_v1_null" if data.null else "synthetic_v1"
    if isinstance(data, MannersData):
        return "synthetic" if data.consistency else "synthetic_null"
    if isinstance(data, StreamData):
        return f"streams_{data.order}" + ("_null" if data.null else "")
    if isinstance(data, StyledData):
        between = "_between" if data.between else ""
        return f"synthetic_styled_{data.similarity:g}{between}"
    if isinstance(data, CorporaData):
        names = "_".join(corpus.name for corpus in data.text.files)
        return f"corpora_{data.similarity:g}_{names}"
    path = Path(data.path)
    return str(Path(path.parent.name) / path.name)


HARDWARE = Path(str(files("conf"))) / "hardware"
"""Folder of the profiles that are known by name."""


def build_mix(settings: FleetSettings) -> FleetMix:
    """Returns the profiles of a fleet with their shares.

    Raises:
        ValueError: If a profile is unknown or a name is taken.
    """
    profiles = dict(load_hardware(HARDWARE))
    if settings.profiles is not None:
        own = load_hardware(Path(settings.profiles))
        if taken := sorted(set(own) & set(profiles)):
            raise ValueError(f"fleet.profiles must use names of their own; {taken[0]!r} is taken")
        profiles |= own
    unknown = sorted(set(settings.mix) - set(profiles))
    if unknown:
        raise ValueError(
            f"fleet.mix names the unknown device class {unknown[0]!r}; known are "
            f"{', '.join(sorted(profiles))}; see `fleettune devices`"
        )
    # a share of 0 takes a class out of a mix from the command line
    parts = tuple((profiles[name], share) for name, share in settings.mix.items() if share != 0)
    return FleetMix(name="fleet", parts=parts)
