"""A device's night as a value: what it holds, what was done so far, and what that asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from clients.adaptation.decision import Decision
from clients.night.attendance import Attendance
from clients.night.order import NightOrder
from clients.night.selecting import SelectionCounts
from clients.night.transfers import Payload, WrittenDelta
from clients.start.rules import FoundStart
from clients.state.state import DeviceState
from clients.tuning.plan import TunePlan
from fleettune.adapters.patch import Patch
from fleettune.cost.energy import Values, heat_s, work_s
from fleettune.cost.ledger import Stage
from fleettune.cost.workload import Entry, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A device's night so far.

    Attributes:
        state: What the device holds.
        decision: What it does about its patch.
        day_work: What serving and reading the lived days asked, outside the night's window.
        window_work: What was done in the night's window.
        attendance: How it takes part.
        payload: What brought the release to it tonight.
        trained: The patch of this night, None if nothing was trained.
        plan: How that was trained.
        canary: Nats per token of its canaries after the tune.
        peak_bytes: Memory at the peak of a tune, done or not.
        counts: What came of the exchanges that arrived.
        catalogue_start: What was found in the catalogue for a first tune, where one was offered.
        fleet_part: The part of the fleet patch, or of a catalogue's, that the tune started from.
            The delta is what the tune added to it.
        written: The delta as it is sent.
    """

    state: DeviceState
    decision: Decision
    day_work: Workload = field(default_factory=Workload)
    window_work: Workload = field(default_factory=Workload)
    attendance: Attendance = Attendance.PRESENT
    payload: Payload = Payload.NONE
    trained: Patch | None = None
    plan: TunePlan | None = None
    canary: float | None = None
    peak_bytes: int = 0
    counts: SelectionCounts = field(default_factory=SelectionCounts)
    catalogue_start: FoundStart | None = None
    fleet_part: Patch | None = None
    written: WrittenDelta | None = None

    @property
    def workload(self) -> Workload:
        """Everything that the device did."""
        return self.day_work + self.window_work

    @property
    def over(self) -> bool:
        """True if the device works no more tonight."""
        return self.attendance is not Attendance.PRESENT


def bill(order: NightOrder, night: Night, entries: Sequence[Entry]) -> Night:
    """Returns the night with more work in its window, or cut short where the window ends first.

    Of a night that is cut short, what was done of this work is wasted. After its end nothing is
    billed.
    """
    if night.over:
        return night
    prices, before = order.facts.prices, night.window_work
    after = before.plus_all(entries)
    begun_s, ended_s = lasts_s(before, prices), lasts_s(after, prices)
    if ended_s <= order.tonight.limit_s:
        return replace(night, window_work=after)
    done = max(0.0, order.tonight.limit_s - begun_s) / (ended_s - begun_s)
    wasted = before.plus_all((Stage.WASTED, phase, amount * done) for _, phase, amount in entries)
    return replace(night, window_work=wasted, attendance=Attendance.INTERRUPTED)


def lasts_s(workload: Workload, prices: Values) -> float:
    """Returns how long a night's work takes, slowed down by heat."""
    return work_s(workload, prices) + heat_s(workload, prices)
