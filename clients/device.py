"""The story of a device's night, in order. Straight-line code: the engine suspends it at compute.

Every stage bills what the device's own algorithm runs (`clients.work.stage_work`), at the shapes
that are priced and on its own hardware (simulated). A device that is taken from its charger in the
middle loses what it had begun; those joules are wasted.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from clients.adaptation.decision import Action, Decision, numbers_of
from clients.decision.decide import decide
from clients.night.attendance import Attendance, charge_after
from clients.night.night import Night, bill, lasts_s
from clients.night.order import NightOrder
from clients.night.selecting import read_arrivals, read_days, reembed, select, serving_work
from clients.night.shelving import with_room
from clients.night.transfers import download, write_delta
from clients.observer.counterfactual import retune_gain
from clients.observer.evaluation import observe
from clients.observer.start_quality import observe_start
from clients.state.state import DeviceState, check_quota
from clients.work.stage_work import upload_work
from fleettune.cost.energy import heat_s, price
from fleettune.cost.ledger import Stage
from fleettune.cost.workload import Workload
from fleettune.messages.report import Observation, Outcome, Report, Statistics


def run_round(
    order: NightOrder, state: DeviceState, *, observed: bool
) -> tuple[DeviceState, Report]:
    """Returns the device's state after a night, and its report.

    A device that is absent, or whose battery is below the floor, does none of the stages 1 to 6.

    1. Read the days since the last night and select what is kept of them (`night.selecting`).
    2. Download tonight's release, whole or as a delta (`night.transfers`).
    3. Decide about the patch, once per release (`decision.decide`).
    4. Tune where that was decided (`retuning.retune`).
    5. Upload the delta and the statistics (`night.transfers`).
    6. Drop from the shelf what has no room, and check the quota (`night.shelving`, `state`).
    7. Let the observer look at the next day, if it is asked to (`observer`).
    8. Report.

    Args:
        order: Device, release, policy, time and processor.
        state: What the device held before.
        observed: True if the observer looks at the next day and at what the night was priced from.

    Raises:
        RuntimeError: If the device would hold more than its quota, which is a fault of ours.
    """
    night = Night(
        state=state,
        decision=Decision(action=Action.NONE, reason="same_release"),
        attendance=order.tonight.attends,
    )
    before = night
    if not night.over:
        night = _read_and_select(order, night)
        night = _download(order, night)
        before = night
        if night.state.settled != order.release.version:
            night = decide(order, night)
        night = _upload(order, night)
        night = replace(night, state=with_room(night.state, order.policy.quota))
    kept = check_quota(night.state, order.policy.quota)
    written = None if night.over else night.written
    return kept, Report(
        statistics=_statistics(order, night),
        delta=None if written is None else written.change,
        observation=_observe(order, before, night) if observed else None,
        workload=night.workload if observed else Workload(),
        frame=None if written is None else written.sent.frame,
    )


def _read_and_select(order: NightOrder, night: Night) -> Night:
    """Reads all days since the last night, keeps what the selection says, and asks about it."""
    arrived = read_days(order, night.state)
    readings = read_arrivals(order, arrived)
    state, again = reembed(order, night.state, arrived)
    state, counts = select(order, state, arrived, readings)
    day_work = night.day_work.plus_all([*again, *serving_work(order, state, arrived)])
    state = replace(state, last_day=order.round)
    return replace(night, state=state, day_work=day_work, counts=counts)


def _download(order: NightOrder, night: Night) -> Night:
    """Brings the newest release to the device; a download cut short begins anew another night."""
    if night.state.release == order.release.version:
        return night
    way = download(order.facts, order.release, night.state.held)
    night = bill(order, night, way.entries)
    if night.over:
        return night
    before = night.state.before or night.state.held
    held = replace(order.release, drifts=(), deltas=(), guidance=None)
    state = replace(night.state, held=held, before=before)
    return replace(night, payload=way.payload, state=state)


def _upload(order: NightOrder, night: Night) -> Night:
    """Sends delta and statistics; after the deadline nobody takes them."""
    state = night.state
    written = write_delta(order.policy, state, night.trained, night.fleet_part)
    night = replace(night, written=written)
    change = None if written is None else written.change
    frame = b"" if written is None else written.sent.frame
    entries = upload_work(order.facts, order.release, change, frame)
    night = bill(order, night, entries)
    if night.over:
        return night
    if lasts_s(night.window_work, order.facts.prices) <= order.tonight.deadline_s:
        if written is not None:
            state = replace(state, residual=written.sent.residual)
        return replace(night, state=state)
    for stage, phase, amount in entries:
        rest = tuple(e for e in night.window_work.entries if e[0] is not stage)
        late = Workload(entries=rest).plus(Stage.WASTED, phase, amount)
        night = replace(night, window_work=late)
    return replace(night, attendance=Attendance.LATE)


def _observe(order: NightOrder, before: Night, night: Night) -> Observation:
    """Returns what the observer sees, who knows the days to come; the device is not billed."""
    tomorrow, found = order.round + 1, night.catalogue_start
    seen = replace(
        observe(order, night.state, tomorrow), retune_gain=retune_gain(order, before, night)
    )
    if found is not None and night.trained is not None:
        seen = observe_start(order, night.state, seen, found, tomorrow)
    return seen


def _statistics(order: NightOrder, night: Night) -> Statistics:
    prices, tonight, profile = order.facts.prices, order.tonight, order.facts.profile
    heat, night_s = heat_s(night.window_work, prices), lasts_s(night.window_work, prices)
    worked_j = price(night.window_work, prices, heat).total().energy_j
    reason = night.decision.reason
    if night.decision.action is Action.NONE and night.state.settled != order.release.version:
        reason = night.attendance.value
    return Statistics(
        outcome=Outcome(
            device=order.facts.device,
            round=order.round,
            release=night.state.release,
            profile=profile.name,
            attendance=night.attendance.value,
            payload=night.payload.value,
            decision=night.decision.action.value,
            reason=reason,
        ),
        ledger=price(night.workload, prices, heat),
        start_s=tonight.start_s,
        night_s=night_s,
        soc=tonight.soc,
        soc_after=charge_after(tonight.soc, profile, worked_j, night_s),
        **numbers_of(night.decision),
        canary_after=night.canary,
        buffer_exchanges=len(night.state.buffer),
        buffer_bytes=night.state.buffer_bytes,
        stored_bytes=night.state.stored_bytes,
        tune_steps=0 if night.plan is None else len(night.plan.batches),
        train_tokens=0 if night.plan is None else night.plan.tokens,
        cache_bytes=0 if night.plan is None else night.plan.cache_bytes,
        peak_bytes=night.peak_bytes,
        **asdict(night.counts),
        over_budget=0 if night.plan is None else int(night.plan.over_budget),
        synthesised=0 if night.plan is None else night.plan.synthesised,
        synthetic_kept=0 if night.plan is None else night.plan.synthetic_kept,
    )
