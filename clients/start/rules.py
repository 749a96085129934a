"""Start rules: how a device finds what its first tune starts from, and what finding it asks.

A rule is given the device's own exchanges and an offered catalogue. What it returns stays on the
device; the server learns which patches were wanted, by serving them, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from clients.work.facts import Facts
from fleettune.adapters.patch import Patch, Placement
from fleettune.catalogue.manifest import CatalogueOffer
from fleettune.cost.workload import Entry
from fleettune.data.exchanges import Exchange
from fleettune.jobs.jobs import Compute
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContext:
    """The inputs of a start rule.

    Attributes:
        facts: The device.
        release: What it tunes.
        offer: The catalogue.
        exchanges: Its user's answered exchanges, in time order.
        placement: Where its adapters will be.
        compute: Its processor.
    """

    facts: Facts
    release: Manifest
    offer: CatalogueOffer
    exchanges: tuple[Exchange, ...]
    placement: Placement
    compute: Compute


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundStart:
    """What a first tune starts from.

    Attributes:
        names: Names of the entries in it; none from scratch.
        patch: Their sum at the device's rank; None from scratch.
        entries: What finding it asked of the device, downloads included.
    """

    names: tuple[str, ...] = ()
    patch: Patch | None = None
    entries: tuple[Entry, ...] = ()


@runtime_checkable
class StartRule(Protocol):
    """How a device finds the start of its first tune."""

    def find(self, context: StartContext) -> FoundStart:
        """Returns the start; called only where a catalogue is offered."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """Every tune starts from an untrained patch."""

    def find(self, context: StartContext) -> FoundStart:
        """Returns no entry."""
        return FoundStart()
