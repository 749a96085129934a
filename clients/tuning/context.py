"""What a rule of placement may look at: this device, tonight's release, the tune to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clients.tuning.schedule import Held, Tuning
from clients.work.facts import Facts
from fleettune.adapters import patch as adapters
from fleettune.cost.workload import Entry
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, ProbeResult
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindered:
    """There can be no tune.

    Attributes:
        reason: Why, as one lower-case word with underscores.
        peak_bytes: Memory that the device would have needed, as priced; 0 where nothing was placed.
    """

    reason: str
    peak_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preparation:
    """What a rule measured or trained before it places; nothing for most rules.

    Attributes:
        entries: What that asked of the device, by the stage that it is billed as.
        probed: What its probes found, in their order.
        patch: What it trained; None if nothing.
        scores: Score of every site that it may place on, where it trained.
        peak_bytes: Memory at the peak of its training, as priced.
    """

    entries: Sequence[Entry] = ()
    probed: tuple[ProbeResult, ...] = ()
    patch: adapters.Patch | None = None
    scores: Mapping[Site, float] = field(default_factory=dict[Site, float])
    peak_bytes: float = 0.0


UNPREPARED = Preparation()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementContext:
    """A tune to come, before its adapters are placed.

    Attributes:
        facts: The device.
        release: What it tunes.
        tuning: Its schedule and optimizer.
        compute: The device's processor.
        batches: The examples of every step.
        largest: Simulated lengths of the largest step that there may be, in tokens.
        room_bytes: What the quota leaves for patch and prefix cache.
        held: What the tune validates on.
        training: What it trains on, every example once.
        preparation: What the rule measured or trained before it places.
    """

    facts: Facts
    release: Manifest
    tuning: Tuning
    compute: Compute
    batches: tuple[tuple[Example, ...], ...]
    largest: tuple[int, ...]
    room_bytes: int
    held: Held = field(default_factory=Held)
    training: tuple[Example, ...] = ()
    preparation: Preparation = UNPREPARED
