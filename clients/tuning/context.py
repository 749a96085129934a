"""What a rule of placement may look at: this device, tonight's release, the tune to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clients.tuning.schedule import Held, Tuning
from clients.work.facts import Facts
from fleettune.adapters import patch as adapters
from fleettune.cost.workload import Entry
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, ProbeResult
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Site


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What a rule's own training left before it places.

    Attributes:
        patch: What was trained.
        scores: Score of every site that is left.
        entries: What it asked of the device, charged as probing.
        peak_bytes: Memory at its peak, as priced.
    """

    patch: adapters.Patch
    scores: Mapping[Site, float]
    entries: list[Entry]
    peak_bytes: float


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
        probed: What the rule's probes found, in their order; empty for rules without any.
        held: What the tune validates on.
        training: What it trains on, every example once.
        trained: What a rule that trains before it places left; None for other rules.
    """

    facts: Facts
    release: Manifest
    tuning: Tuning
    compute: Compute
    batches: tuple[tuple[Example, ...], ...]
    largest: tuple[int, ...]
    room_bytes: int
    probed: tuple[ProbeResult, ...] = ()
    held: Held = field(default_factory=Held)
    training: tuple[Example, ...] = ()
    trained: Trained | None = None
