"""The registry: which device has which hardware and which user; a pure function of the seed.

Devices read it from a local file, as a real phone knows its own hardware and user without being
told by a server; so the same fleet lives on our engine and on stock Flower. It stands here and not
among the simulations because both the simulation and the device read it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from fleettune.cost.battery import SOC_FLOOR
from fleettune.cost.hardware import Coefficient, DeviceProfile, FleetMix
from fleettune.cost.pricing import PricedModel
from fleettune.cost.radio import WIFI, Link, Radio, Wifi
from fleettune.data.exchanges import Population
from fleettune.data.long_streams import StreamData
from fleettune.data.manners import MannersData
from fleettune.data.personas import SyntheticData
from fleettune.data.real_users import TableData
from fleettune.data.style_corpora import Corpora, CorporaData, Corpus
from fleettune.data.styles import Style, StyledData
from fleettune.fleet.availability import Always, Availability, Nightly
from fleettune.fleet.joining import FROM_THE_START, Join, Joining
from fleettune.fleet.recorded_traces import Trace
from fleettune.messages.report import Writing
from fleettune.records import Types, from_record, read_json, to_record
from fleettune.seeds import Purpose, stream


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterfactualSettings:
    """Whose reuse or retune the observer weighs against the other one, billed to nobody.

    Attributes:
        arms: Names of the arms; none: nobody's.
        days: Days to come that both patches are scored on.

    Raises:
        ValueError: If `days` is below 1 day.
    """

    arms: tuple[str, ...] = ()
    days: int = 1

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ValueError(f"quality.counterfactual_days must be >= 1 day, got {self.days}")

    def days_of(self, arm: str) -> int:
        """Returns how many days are looked at for an arm; 0 where its decisions are not judged."""
        return self.days if arm in self.arms else 0


DATA_TYPES: Types = {
    kind.__name__: kind
    for kind in (
        *(SyntheticData, StreamData, StyledData, Style, TableData, MannersData),
        *(CorporaData, Corpora, Corpus),
    )
}
FACT_TYPES: Types = {
    kind.__name__: kind
    for kind in (
        *(FleetMix, DeviceProfile, Coefficient, PricedModel, Link, Wifi),
        *(Always, Nightly, Trace, Writing, CounterfactualSettings, Joining, Join),
    )
}

FleetData = SyntheticData | StreamData | StyledData | TableData | CorporaData | MannersData


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet as its members know it.

    Attributes:
        seed: The experiment's seed.
        mix: Hardware profiles with their shares.
        data: Where the users' exchanges come from.
        installed: Dotted paths of policy classes installed on the devices besides ours.
        priced: Which model the devices' costs are counted for.
        radio: How the devices are connected.
        availability: When they may work.
        floor: State of charge below which no work starts, from 0 to 1.
        deadline_s: Seconds that the server waits from a device's start; None: for ever.
        writing: What the experiment's observer lets the model write.
        counterfactual: Whose decisions it judges by the days to come.
        joining: Which devices join when.
    """

    seed: int
    mix: FleetMix
    data: FleetData
    installed: tuple[str, ...] = ()
    priced: PricedModel = field(default_factory=PricedModel)
    radio: Radio = WIFI
    availability: Availability = field(default_factory=Always)
    floor: float = SOC_FLOOR
    deadline_s: float | None = None
    writing: Writing = field(default_factory=Writing)
    counterfactual: CounterfactualSettings = field(default_factory=CounterfactualSettings)
    joining: Joining = FROM_THE_START

    def profile(self, device: int) -> DeviceProfile:
        """Returns the hardware of a device."""
        return self.mix.profile_of(float(stream(self.seed, Purpose.HARDWARE, device).random()))

    def write(self, file: Path) -> None:
        """Writes the fleet as JSON."""
        file.write_text(json.dumps(to_record(self)))


@dataclass(frozen=True, slots=True)
class OpenFleet:
    """A fleet with its population at hand."""

    fleet: Fleet
    population: Population


@lru_cache(maxsize=4)
def open_fleet(file: Path) -> OpenFleet:
    """Returns the fleet of a file; reads file and data once per process.

    Raises:
        ValueError: If the file does not describe a fleet.
    """
    types = {**DATA_TYPES, **FACT_TYPES, "Fleet": Fleet}
    fleet = from_record(read_json(file.read_bytes(), str(file)), types, "fleet")
    if not isinstance(fleet, Fleet):
        raise ValueError(f"{file} must describe a Fleet, got {type(fleet).__name__}")
    return OpenFleet(fleet, fleet.data.open())
