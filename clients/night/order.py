"""The order for one night of one device: what it is about, and everything that it is done with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from clients.night.attendance import Tonight
from clients.policy import DevicePolicy
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch
from fleettune.catalogue.manifest import CatalogueOffer
from fleettune.data.exchanges import Exchange, Population
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute
from fleettune.messages.report import Writing
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class NightOrder:
    """What every stage of a night is handed; no rule ever is, for it knows the days to come.

    Attributes:
        facts: The device.
        round: Number of the night, which is the newest day that the device has lived.
        release: Tonight's release.
        policy: What the device was told to do.
        population: What its user says, day by day. The device reads up to today, the observer on.
        compute: The device's processor.
        tonight: What the night allows.
        fleet: The fleet patch; None where the server sends none.
        catalogue: What first tunes may start from; None where nothing is offered.
        foresight_days: Days to come on which the observer compares a retune with none; 0: none.
        writing: What the observer lets the model write.
    """

    facts: Facts
    round: int
    release: Manifest
    policy: DevicePolicy
    population: Population
    compute: Compute
    tonight: Tonight = field(default_factory=Tonight)
    fleet: Patch | None = None
    catalogue: CatalogueOffer | None = None
    foresight_days: int = 0
    writing: Writing = field(default_factory=Writing)

    def examples(self, exchanges: Iterable[Exchange]) -> tuple[Example, ...]:
        """Returns exchanges as tonight's release reads them."""
        return tuple(map(self.facts.encoder(self.release).example, exchanges))
