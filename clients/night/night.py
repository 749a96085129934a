"""A device's night as a value: what it is about, what was done so far, and what that asked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from clients.adaptation.decision import Decision
from clients.night.attendance import Attendance, Tonight
from clients.night.selecting import SelectionCounts
from clients.night.transfers import Payload, Written
from clients.policy import DevicePolicy
from clients.start.rules import FoundStart
from clients.state.state import DeviceState
from clients.tuning.plan import TunePlan
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch
from fleettune.catalogue.manifest import CatalogueOffer
from fleettune.cost.energy import Values, heat_s, work_s
from fleettune.cost.ledger import Stage
from fleettune.cost.workload import Entry, Workload
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A device's night so far: what it holds, what it did, what that asked of it.

    Attributes:
        state: What the device holds.
        decision: What it does about its patch.
        day: What serving and reading the lived days asked, outside the night's window.
        night: What the night asked.
        attendance: How it takes part.
        payload: What brought the release to it tonight.
        trained: The patch of this night, None if nothing was trained.
        plan: How that was trained.
        canary: Nats per token of its canaries behind the tune.
        peak_bytes: Memory at the peak of a tune, done or not.
        taken: What came of the exchanges that arrived.
        begun: What of the fleet patch the tune started from.
        written: The delta as it is sent.
        found: What its first tune starts from, where a catalogue was offered.
    """

    state: DeviceState
    decision: Decision
    day: Workload = field(default_factory=Workload)
    night: Workload = field(default_factory=Workload)
    attendance: Attendance = Attendance.PRESENT
    payload: Payload = Payload.NONE
    trained: Patch | None = None
    plan: TunePlan | None = None
    canary: float | None = None
    peak_bytes: int = 0
    taken: SelectionCounts = field(default_factory=SelectionCounts)
    begun: Patch | None = None
    written: Written | None = None
    found: FoundStart | None = None

    @property
    def workload(self) -> Workload:
        """Everything that the device did."""
        return self.day + self.night

    @property
    def over(self) -> bool:
        """True if the device works no more tonight."""
        return self.attendance is not Attendance.PRESENT


@dataclass(frozen=True, slots=True, kw_only=True)
class NightOrder:
    """What a night is about: this device, tonight's release, its orders, its time, the fleet's.

    `foresight_days` is the observer's (`clients.observer.counterfactual`); no rule is given a
    order.
    """

    facts: Facts
    round: int
    release: Manifest
    policy: DevicePolicy
    tonight: Tonight = field(default_factory=Tonight)
    fleet: Patch | None = None
    foresight_days: int = 0
    catalogue: CatalogueOffer | None = None


def bill(order: NightOrder, night: Night, entries: list[Entry]) -> Night:
    """Charges work of the night, or wastes what of it was done before the device was taken away."""
    if night.over:
        return night
    at, before = order.facts.at, night.night
    after = before
    for entry in entries:
        after = after.plus(*entry)
    begun_s, ended_s = lasts_s(before, at), lasts_s(after, at)
    if ended_s <= order.tonight.limit_s:
        return replace(night, night=after)
    done = max(0.0, order.tonight.limit_s - begun_s) / (ended_s - begun_s)
    for _, phase, amount in entries:
        before = before.plus(Stage.WASTED, phase, amount * done)
    return replace(night, night=before, attendance=Attendance.INTERRUPTED)


def lasts_s(workload: Workload, at: Values) -> float:
    """Returns how long a night's work takes, slowed down by heat."""
    return work_s(workload, at) + heat_s(workload, at)
