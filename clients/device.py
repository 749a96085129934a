"""The story of a device's night, in order. Straight-line code: the engine suspends it at compute.

read and select, download, decide, place and tune, upload; and, where the experiment
asks, let the observer look at the next day. Every stage charges what the device's own algorithm
runs (`clients.charges`), at the shapes that are priced and on its own hardware (simulated). A
device that is taken from its charger in the middle loses what it had begun; the joules are wasted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from clients import charges
from clients.adaptation import PUT_OFF, Action, Decision, numbers_of
from clients.attendance import Attendance, Tonight, charge_after
from clients.baselines import TRIAL, Oracle
from clients.download import Payload, download
from clients.evaluation import observe
from clients.expansion import expanded
from clients.facts import Facts
from clients.policy import DevicePolicy
from clients.reading import Taken, arrivals, embed, lived, select
from clients.recollection import Recollection
from clients.retune import TunePlan, open_context, peak_of, plan_tune, probe_jobs
from clients.sight import nats_per_token
from clients.state import DeviceState, within
from clients.weighing import budgeted, canary_examples, foreseen, start_of, trained_on, weighed
from fleettune.adapters import Patch
from fleettune.compute import Compute, TuneJob
from fleettune.cost import Stage
from fleettune.energy import Values, heat_s, price, work_s
from fleettune.releases import Manifest
from fleettune.statistics import Outcome, Report, Statistics
from fleettune.workload import Entry, Workload


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
    taken: Taken = field(default_factory=Taken)

    @property
    def workload(self) -> Workload:
        """Everything that the device did."""
        return self.day + self.night

    @property
    def over(self) -> bool:
        """True if the device works no more tonight."""
        return self.attendance is not Attendance.PRESENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a night is about: this device, tonight's release, its orders, its time."""

    facts: Facts
    round: int
    release: Manifest
    policy: DevicePolicy
    tonight: Tonight = field(default_factory=Tonight)


def run_round(
    visit: Visit, state: DeviceState, compute: Compute, *, observed: bool
) -> tuple[DeviceState, Report]:
    """Returns the device's state after the night, and its report.

    Args:
        visit: Device, round, release, policy and time.
        state: What the device held before.
        compute: Its processor.
        observed: True if the observer looks at the next day and at what the night was priced from.
    """
    night = Night(
        state=state,
        decision=Decision(action=Action.NONE, reason="same_release"),
        attendance=visit.tonight.attends,
    )
    if not night.over:
        night = _read_and_select(visit, night, compute)
        night = _download(visit, night)
        if night.state.settled != visit.release.version:
            night = _decide(visit, night, compute)
        elif night.state.due is not None:
            night = _catch_up(visit, night, night.state.due, compute)
        night = _upload(visit, night)
    kept = within(night.state, visit.policy.quota)
    observation = None
    if observed:
        later = visit.round + 1
        observation = observe(visit.facts, kept, later, visit.policy.adaptation, compute)
        observation = replace(observation, retune_gain=night.decision.gain)
    statistics = _statistics(visit, night)
    delta = None if night.over else night.trained
    workload = night.workload if observed else Workload()
    return kept, Report(
        statistics=statistics, delta=delta, observation=observation, workload=workload
    )


def _work(visit: Visit, night: Night, entries: list[Entry]) -> Night:
    """Charges work of the night, or wastes what of it was done before the device was taken away."""
    if night.over:
        return night
    at, before = visit.facts.at, night.night
    after = before
    for entry in entries:
        after = after.plus(*entry)
    begun_s, ended_s = _lasts_s(before, at), _lasts_s(after, at)
    if ended_s <= visit.tonight.limit_s:
        return replace(night, night=after)
    done = max(0.0, visit.tonight.limit_s - begun_s) / (ended_s - begun_s)
    for _, phase, amount in entries:
        before = before.plus(Stage.WASTED, phase, amount * done)
    return replace(night, night=before, attendance=Attendance.INTERRUPTED)


def _lasts_s(workload: Workload, at: Values) -> float:
    """Returns how long a night's work takes, slowed down by heat."""
    return work_s(workload, at) + heat_s(workload, at)


def _read_and_select(visit: Visit, night: Night, compute: Compute) -> Night:
    """Reads all days since the last night, keeps what the selection says, and asks about it."""
    facts, policy, state = visit.facts, visit.policy, night.state
    # before its first download a device has the release that it was made with: the newest
    release = visit.release if state.held is None else state.held
    arrived = arrivals(facts, release, state.last_day, visit.round)
    readings = embed(policy, release, arrived, compute)
    state, taken = select(facts, release, policy, state, readings)
    day = night.day
    for entry in lived(facts, visit.release, policy, state, arrived):
        day = day.plus(*entry)
    return replace(night, state=replace(state, last_day=visit.round), day=day, taken=taken)


def _download(visit: Visit, night: Night) -> Night:
    """Brings the newest release to the device; a download cut short begins anew another night."""
    if night.state.release == visit.release.version:
        return night
    way = download(visit.facts, visit.release, night.state.held)
    night = _work(visit, night, way.entries)
    if night.over:
        return night
    before = night.state.before or night.state.held
    held = replace(visit.release, drifts=(), deltas=(), guidance=None)
    state = replace(night.state, held=held, before=before)
    return replace(night, payload=way.payload, state=state)


def _decide(visit: Visit, night: Night, compute: Compute) -> Night:
    """Does what the policy decides about the patch; cut short, the next night decides again."""
    if night.over:
        return night
    facts, release, state = visit.facts, visit.release, night.state
    decision = weighed(facts, release, visit.policy, state, compute)
    decided = _work(visit, night, charges.check(facts, release, state.patch, decision))
    if decided.over:
        return decided
    decided = _keeping(decided, decision)
    if decision.action is Action.RETUNE and decision.deferred:
        due = replace(decided.state, due=replace(decision, deferred=False, passes=()))
        decided = replace(decided, state=due, decision=PUT_OFF)
    elif decision.action is Action.RETUNE:
        decided = _tried(visit, decided, _retune(visit, decided, compute), compute)
    if decided.over:
        return replace(decided, decision=night.decision, state=state)
    return replace(decided, state=replace(decided.state, settled=release.version, before=None))


def _keeping(night: Night, decision: Decision) -> Night:
    """Returns the night with a decision, and with what its rule keeps."""
    patch = None if decision.action is Action.NEVER else night.state.patch
    kept = replace(night.state, patch=patch, recollection=decision.recollection, due=None)
    return replace(night, decision=decision, state=kept)


def _tried(visit: Visit, kept: Night, tuned: Night, compute: Compute) -> Night:
    """Returns the night with the retune, or without it where an oracle knows better."""
    rule = visit.policy.adaptation
    if not isinstance(rule, Oracle) or kept.decision.reason != TRIAL or tuned.trained is None:
        return tuned
    told = foreseen(visit.facts, rule, (kept.state, tuned.state), visit.round, compute)
    return replace(tuned if told.action is Action.RETUNE else kept, decision=told)


def _catch_up(visit: Visit, night: Night, due: Decision, compute: Compute) -> Night:
    """Does a retune that was put off; cut short, it stays due."""
    done = _retune(visit, _keeping(night, due), compute)
    if done.over:
        return replace(done, decision=night.decision, state=night.state)
    return done


def _retune(visit: Visit, night: Night, compute: Compute) -> Night:
    """Trains a new patch where the device can; what hinders it is its decision's reason."""
    visit = replace(visit, policy=budgeted(visit.policy, night.decision))
    facts, release, policy, state = visit.facts, visit.release, visit.policy, night.state
    encoder = facts.encoder(release)
    examples = [encoder.example(e) for e in trained_on(facts, policy.adaptation, state)]
    context = open_context(facts, release, policy, state, examples)
    jobs = probe_jobs(policy, context)
    night = _work(visit, night, charges.probe(visit.facts, release, jobs))
    if night.over:
        return night
    plan = plan_tune(policy, context, [compute.probe(job) for job in jobs])
    night = replace(night, peak_bytes=peak_of(policy, context, plan))
    if isinstance(plan, str):
        hindered = replace(night.decision, action=Action.INFEASIBLE, reason=plan)
        return replace(night, decision=hindered)
    plan = expanded(facts, release, policy, state, plan, compute)
    canaries = canary_examples(facts, release, policy, state)
    looking = charges.score(facts, release, plan.placement.ranks, canaries)
    night = _work(visit, night, [*plan.entries, *looking])
    if night.over:
        return night
    result = compute.tune(
        TuneJob(
            release=release.path,
            start=start_of(facts, release, plan.placement, state.patch, night.decision),
            batches=plan.batches,
            learning_rate=policy.tuning.learning_rate,
            clip=policy.tuning.clip,
        )
    )
    canary = nats_per_token(release, result.patch, canaries, compute)
    state = replace(state, patch=result.patch, recollection=Recollection(canary=canary))
    return replace(night, state=state, trained=result.patch, plan=plan, canary=canary)


def _upload(visit: Visit, night: Night) -> Night:
    """Sends delta and statistics; after the deadline nobody takes them."""
    entries = charges.upload(visit.facts, visit.release, night.trained)
    night = _work(visit, night, entries)
    if night.over or _lasts_s(night.night, visit.facts.at) <= visit.tonight.deadline_s:
        return night
    for stage, phase, amount in entries:
        rest = tuple(e for e in night.night.entries if e[0] is not stage)
        late = Workload(entries=rest).plus(Stage.WASTED, phase, amount)
        night = replace(night, night=late)
    return replace(night, attendance=Attendance.LATE)


def _statistics(visit: Visit, night: Night) -> Statistics:
    at, tonight, profile = visit.facts.at, visit.tonight, visit.facts.profile
    heat, night_s = heat_s(night.night, at), _lasts_s(night.night, at)
    worked_j = price(night.night, at, heat).total().energy_j
    reason = night.decision.reason
    if night.decision.action is Action.NONE and night.state.settled != visit.release.version:
        reason = night.attendance.value
    return Statistics(
        outcome=Outcome(
            device=visit.facts.device,
            round=visit.round,
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
