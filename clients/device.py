"""The story of a device's night, in order. Straight-line code: the engine suspends it at compute.

read and select, download, decide, place and tune, upload; and, where the experiment
asks, let the observer look at the next day. Every stage charges what the device's own algorithm
runs (`clients.work.stage_work`), at the shapes that are priced and on its own hardware (simulated).
A device that is taken from its charger in the middle loses what it had begun; the joules are
wasted.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from clients.adaptation.decision import Action, Decision, numbers_of
from clients.decision.decide import catch_up, decide
from clients.night.attendance import Attendance, charge_after
from clients.night.night import Night, NightOrder, bill, lasts_s
from clients.night.selecting import arrivals, read_arrivals, reembed, select, serving_work
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
from fleettune.jobs.jobs import Compute
from fleettune.messages.report import Outcome, Report, Statistics


def run_round(
    order: NightOrder, state: DeviceState, compute: Compute, *, observed: bool
) -> tuple[DeviceState, Report]:
    """Returns the device's state after the night, and its report.

    Args:
        order: Device, round, release, policy and time.
        state: What the device held before.
        compute: Its processor.
        observed: True if the observer looks at the next day and at what the night was priced from.
    """
    night = Night(
        state=state,
        decision=Decision(action=Action.NONE, reason="same_release"),
        attendance=order.tonight.attends,
    )
    before = night
    if not night.over:
        night = _read_and_select(order, night, compute)
        night = _download(order, night)
        before = night
        if night.state.settled != order.release.version:
            night = decide(order, night, compute)
        elif night.state.due is not None:
            night = catch_up(order, night, night.state.due, compute)
        night = _upload(order, night)
        night = replace(night, state=with_room(night.state, order.policy.quota))
    kept = check_quota(night.state, order.policy.quota)
    observation = None
    if observed:
        later = order.round + 1
        observation = observe(order.facts, kept, later, order.policy.adaptation, compute)
        gain = retune_gain(order, before, night, compute)
        observation = replace(observation, retune_gain=gain)
        if night.found is not None and night.trained is not None:
            observation = observe_start(order, observation, night.found, later, kept, compute)
    statistics = _statistics(order, night)
    sent = None if night.over else night.written
    workload = night.workload if observed else Workload()
    return kept, Report(
        statistics=statistics,
        delta=None if sent is None else sent.change,
        observation=observation,
        workload=workload,
        frame=None if sent is None else sent.sent.frame,
    )


def _read_and_select(order: NightOrder, night: Night, compute: Compute) -> Night:
    """Reads all days since the last night, keeps what the selection says, and asks about it."""
    facts, policy, state = order.facts, order.policy, night.state
    # before its first download a device has the release that it was made with: the newest
    release = order.release if state.held is None else state.held
    arrived = arrivals(facts, release, state.last_day, order.round)
    readings = read_arrivals(policy, release, arrived, compute)
    state, again = reembed(facts, release, policy, state, arrived, compute)
    state, taken = select(facts, release, policy, state, readings)
    day = night.day
    for entry in (*again, *serving_work(facts, order.release, policy, state, arrived)):
        day = day.plus(*entry)
    return replace(night, state=replace(state, last_day=order.round), day=day, taken=taken)


def _download(order: NightOrder, night: Night) -> Night:
    """Brings the newest release to the device; a download cut short begins anew another night."""
    if night.state.release == order.release.version:
        return night
    way = download(order.facts, order.release, night.state.held)
    night = bill(order, night, way.entries)
    if night.over:
        return night
    before = night.state.before or night.state.held
    held = replace(order.release, drifts=(), deltas=(), guidance=None, rankings=())
    state = replace(night.state, held=held, before=before)
    return replace(night, payload=way.payload, state=state)


def _upload(order: NightOrder, night: Night) -> Night:
    """Sends delta and statistics; after the deadline nobody takes them."""
    state = night.state
    written = write_delta(order.policy, state, night.trained, night.begun)
    night = replace(night, written=written)
    change = None if written is None else written.change
    frame = b"" if written is None else written.sent.frame
    entries = upload_work(order.facts, order.release, change, frame)
    night = bill(order, night, entries)
    if night.over:
        return night
    if lasts_s(night.night, order.facts.at) <= order.tonight.deadline_s:
        if written is not None:
            state = replace(state, residual=written.sent.residual)
        return replace(night, state=state)
    for stage, phase, amount in entries:
        rest = tuple(e for e in night.night.entries if e[0] is not stage)
        late = Workload(entries=rest).plus(Stage.WASTED, phase, amount)
        night = replace(night, night=late)
    return replace(night, attendance=Attendance.LATE)


def _statistics(order: NightOrder, night: Night) -> Statistics:
    at, tonight, profile = order.facts.at, order.tonight, order.facts.profile
    heat, night_s = heat_s(night.night, at), lasts_s(night.night, at)
    worked_j = price(night.night, at, heat).total().energy_j
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
        ledger=price(night.workload, at, heat),
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
        **asdict(night.taken),
        synthesised=0 if night.plan is None else night.plan.synthesised,
        synthetic_kept=0 if night.plan is None else night.plan.synthetic_kept,
    )
