"""Mixes: which device profiles a fleet is made of, and how many of each."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fleettune.cost.hardware import FleetMix, load_hardware
from simulations.experiment.settings import FleetSettings

HARDWARE = Path(str(files("conf"))) / "hardware"
"""Folder of the profiles that are known by name."""


def mix_of(settings: FleetSettings) -> FleetMix:
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
