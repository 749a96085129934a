"""The story of a device's night, in order. Straight-line code: the engine suspends it at compute.

read and select, download, decide, place and tune, upload; and, where the experiment
asks, let the observer look at the next day. Every stage charges what the device's own algorithm
runs (`clients.charges`), at the shapes that are priced and on its own hardware (simulated). A
device that is taken from its charger in the middle loses what it had begun; the joules are wasted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from clients import charges
from clients.adaptation import Action, Decision
from clients.attendance import Attendance, Tonight, charge_after
from clients.evaluation import observe
from clients.expansion import expanded
from clients.facts import Facts
from clients.policy import DevicePolicy
from clients.reading import Taken, arrivals, embed, lived, recalled, select
from clients.retune import TunePlan, open_context, peak_of, plan_tune, probe_jobs
from clients.state import DeviceState, within
from fleettune.adapters import Patch, Placement, new_patch
from fleettune.compute import Compute, TuneJob
from fleettune.cost import Stage
from fleettune.energy import Values, heat_s, price, work_s
from fleettune.releases import Manifest
from fleettune.seeds import Purpose, stream
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
        trained: The patch of this night, None if nothing was trained.
        plan: How that was trained.
        peak_bytes: Memory at the peak of a tune, done or not.
        taken: What came of the exchanges that arrived.
    """

    state: DeviceState
    decision: Decision
    day: Workload = field(default_factory=Workload)
    night: Workload = field(default_factory=Workload)
    attendance: Attendance = Attendance.PRESENT
    trained: Patch | None = None
    plan: TunePlan | None = None
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
        night = _upload(visit, night)
    kept = within(night.state, visit.policy.quota)
    observation = None
    if observed:
        later = visit.round + 1
        observation = observe(visit.facts, kept, later, visit.policy.adaptation, compute)
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
    state, again = recalled(facts, release, policy, state, arrived, compute)
    state, taken = select(facts, release, policy, state, readings)
    day = night.day
    for entry in (*again, *lived(facts, visit.release, policy, state, arrived)):
        day = day.plus(*entry)
    return replace(night, state=replace(state, last_day=visit.round), day=day, taken=taken)


def _download(visit: Visit, night: Night) -> Night:
    """Brings the newest release to the device; a download cut short begins anew another night."""
    if night.state.release == visit.release.version:
        return night
    night = _work(visit, night, charges.download(visit.facts, visit.release))
    if night.over:
        return night
    return replace(night, state=replace(night.state, held=replace(visit.release, drifts=())))


def _decide(visit: Visit, night: Night, compute: Compute) -> Night:
    """Does what the policy decides about the patch; cut short, the next night decides again."""
    if night.over:
        return night
    patch = night.state.patch
    decision = visit.policy.adaptation.decide(visit.release, patch)
    decided = _work(visit, night, charges.check(visit.facts, visit.release, patch, decision))
    if decided.over:
        return decided
    decided = replace(decided, decision=decision)
    if decision.action is Action.NEVER:
        decided = replace(decided, state=replace(decided.state, patch=None))
    if decision.action is Action.RETUNE:
        decided = _retune(visit, decided, compute)
    if decided.over:
        return replace(decided, decision=night.decision)
    return replace(decided, state=replace(decided.state, settled=visit.release.version))


def _retune(visit: Visit, night: Night, compute: Compute) -> Night:
    """Trains a new patch where the device can; what hinders it is its decision's reason."""
    release, tuning = visit.release, visit.policy.tuning
    encoder = visit.facts.encoder(release)
    examples = [encoder.example(exchange) for exchange in night.state.answered]
    context = open_context(visit.facts, release, visit.policy, night.state, examples)
    jobs = probe_jobs(visit.policy, context)
    night = _work(visit, night, charges.probe(visit.facts, release, jobs))
    if night.over:
        return night
    plan = plan_tune(visit.policy, context, [compute.probe(job) for job in jobs])
    night = replace(night, peak_bytes=peak_of(visit.policy, context, plan))
    if isinstance(plan, str):
        hindered = replace(night.decision, action=Action.INFEASIBLE, reason=plan)
        return replace(night, decision=hindered)
    plan = expanded(visit.facts, release, visit.policy, night.state, plan, compute)
    night = _work(visit, night, plan.entries)
    if night.over:
        return night
    result = compute.tune(
        TuneJob(
            release=release.path,
            start=new_start(visit, plan.placement),
            batches=plan.batches,
            learning_rate=tuning.learning_rate,
            clip=tuning.clip,
        )
    )
    state = replace(night.state, patch=result.patch)
    return replace(night, state=state, trained=result.patch, plan=plan)


def new_start(visit: Visit, placement: Placement) -> Patch:
    """Returns the untrained patch that this device's tune on this release starts from."""
    facts, release = visit.facts, visit.release
    rng = stream(facts.seed, Purpose.ADAPTER, facts.device, release.version)
    return new_patch(placement, release.shapes, release.version, rng)


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
            decision=night.decision.action.value,
            reason=reason,
        ),
        ledger=price(night.workload, at, heat),
        start_s=tonight.start_s,
        night_s=night_s,
        soc=tonight.soc,
        soc_after=charge_after(tonight.soc, profile, worked_j, night_s),
        drift=night.decision.drift,
        strength=night.decision.strength,
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
