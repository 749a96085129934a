"""The story of a device's night, in order. Straight-line code: the engine suspends it at compute.

read and select, download, decide, place and tune, upload; and, where the experiment
asks, let the observer look at the next day. Every stage charges what the device's own algorithm
runs, priced on its own hardware (simulated).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clients.adaptation import Action, Decision, Retrieve
from clients.evaluation import observe
from clients.facts import Facts
from clients.policy import DevicePolicy
from clients.state import DeviceState, within
from fleettune.adapters import Patch, new_patch
from fleettune.compute import Compute, TuneJob, embedding_layers
from fleettune.cost import Cost, Ledger, Stage
from fleettune.energy import (
    check_cost,
    download_cost,
    idle_cost,
    prefill_cost,
    train_cost,
    upload_cost,
)
from fleettune.exchanges import Exchange
from fleettune.memory import memory_peak_bytes
from fleettune.releases import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.statistics import Outcome, Report, Statistics
from fleettune.tokens import Example
from fleettune.wire import STATISTICS_BYTES
from fleettune.work import Ranks, Work, forward_work, training_work

USABLE_RAM = 0.55
"""Share of physical memory that a background job may take (DEVICE_COST 6.2, estimate)."""
EMBEDDING_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A device's night so far: what it holds, what it paid, what it did.

    Attributes:
        state: What the device holds.
        ledger: What the night cost so far.
        decision: What it does about its patch.
        trained: The patch of this night, None if nothing was trained.
        steps: Optimizer steps taken.
        tokens: Tokens trained on.
    """

    state: DeviceState
    ledger: Ledger
    decision: Decision
    trained: Patch | None = None
    steps: int = 0
    tokens: int = 0

    def charged(self, stage: Stage, cost: Cost) -> Night:
        """Returns the night with a cost added."""
        return replace(self, ledger=self.ledger.charge(stage, cost))


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a night is about: this device, tonight's release, its orders."""

    facts: Facts
    round: int
    release: Manifest
    policy: DevicePolicy


def run_round(
    visit: Visit, state: DeviceState, compute: Compute, *, observed: bool
) -> tuple[DeviceState, Report]:
    """Returns the device's state after the night, and its report.

    Args:
        visit: Device, round, release and policy.
        state: What the device held before.
        compute: Its processor.
        observed: True if the observer looks at the next day.
    """
    night = Night(
        state=state, ledger=Ledger(), decision=Decision(action=Action.NONE, reason="same_release")
    )
    night = _read_and_select(visit, night, compute)
    if state.release != visit.release.version:
        night = _download(visit, night)
        night = _decide(visit, night)
        night = _act(visit, night, compute)
    night = _upload(visit, night)
    kept = within(night.state, visit.policy.quota)
    observation = None
    if observed:
        observation = observe(visit.facts, kept, visit.release, visit.policy.adaptation, compute)
    statistics = _statistics(visit, night)
    return kept, Report(statistics=statistics, delta=night.trained, observation=observation)


def _download(visit: Visit, night: Night) -> Night:
    state = replace(night.state, release=visit.release.version)
    cost = download_cost(visit.facts.profile, visit.release.size_bytes)
    return _transferred(visit, replace(night, state=state), Stage.DOWNLOAD, cost)


def _transferred(visit: Visit, night: Night, stage: Stage, cost: Cost) -> Night:
    """Charges a transfer, and to IDLE what the rest of the device draws while it waits for it."""
    waiting = replace(idle_cost(visit.facts.profile, cost.time_s), time_s=0.0)
    return night.charged(stage, cost).charged(Stage.IDLE, waiting)


def _read_and_select(visit: Visit, night: Night, compute: Compute) -> Night:
    """Reads all days since the last night and keeps what the selection says."""
    state, facts, quota = night.state, visit.facts, visit.policy.quota
    arrived = tuple(
        exchange
        for day in range(state.last_day + 1, visit.round + 1)
        for exchange in facts.population.day(facts.user, day)
    )
    held = state.stored_bytes - state.buffer_bytes - state.extra_bytes
    room = min(quota.buffer_bytes, quota.total_bytes - held)
    kept = visit.policy.selection.keep(state.buffer, arrived, room, _priority(facts))
    extra = 0
    if isinstance(visit.policy.adaptation, Retrieve):
        vector = EMBEDDING_BYTES * visit.release.shapes.hidden
        while kept and sum(e.size_bytes + vector for e in kept) > quota.total_bytes - held:
            kept = kept[1:]
        extra = vector * len(kept)
        night = _serve(visit, night, arrived, kept, visit.policy.adaptation.neighbours)
    state = replace(state, buffer=kept, last_day=visit.round, extra_bytes=extra)
    return replace(night, state=state)


def _priority(facts: Facts):  # noqa: ANN202 - a closure of clients.selection.Priority
    def of(exchange: Exchange) -> float:
        rng = stream(facts.seed, Purpose.SELECTION, facts.device, exchange.order)
        return float(rng.random())

    return of


def _serve(
    visit: Visit,
    night: Night,
    arrived: tuple[Exchange, ...],
    kept: tuple[Exchange, ...],
    neighbours: int,
) -> Night:
    """Charges what retrieval adds to serving the lived days: embeddings and longer prompts."""
    encoder, shapes = visit.facts.encoder(visit.release), visit.release.shapes
    prompts = [encoder.example(exchange).prompt for exchange in arrived]
    if not prompts or not kept:
        return night
    lower = replace(shapes, layers=embedding_layers(shapes))
    embedding = forward_work(lower, prompts, 0, {})
    turn = sum(len(encoder.example(exchange).tokens) for exchange in kept) / len(kept)
    room = visit.release.max_tokens
    longer = [min(prompt + round(neighbours * turn), room) for prompt in prompts]
    context = forward_work(shapes, longer, 0, {}).flop - forward_work(shapes, prompts, 0, {}).flop
    profile = visit.facts.profile
    night = night.charged(Stage.SELECT, prefill_cost(profile, embedding))
    added = Work(flop=context + embedding.flop)
    return night.charged(Stage.SERVE, prefill_cost(profile, added))


def _decide(visit: Visit, night: Night) -> Night:
    decision = visit.policy.adaptation.decide(visit.release, night.state.patch)
    profile = visit.facts.profile
    looked = check_cost(profile, decision.read_bytes)
    computed = train_cost(profile, Work(flop=decision.work_flop))
    return replace(night, decision=decision).charged(Stage.CHECK, looked + computed)


def _act(visit: Visit, night: Night, compute: Compute) -> Night:
    """Does what was decided: drops the patch, keeps it, or trains a new one."""
    if night.decision.action is Action.NEVER:
        return replace(night, state=replace(night.state, patch=None))
    if night.decision.action is not Action.RETUNE:
        return night
    placement = visit.policy.placement.place(visit.release.shapes)
    ranks = dict.fromkeys(placement.sites, placement.rank)
    expanded = visit.policy.synthesis.expand(night.state.buffer)
    encoder = visit.facts.encoder(visit.release)
    examples = [encoder.example(exchange) for exchange in expanded]
    obstacle = _obstacle(visit, night, placement.size_bytes(visit.release.shapes), ranks, examples)
    if obstacle:
        kept = replace(night.decision, action=Action.INFEASIBLE, reason=obstacle)
        return replace(night, decision=kept)
    return _tune(visit, night, new_start(visit), examples, compute)


def new_start(visit: Visit) -> Patch:
    """Returns the untrained patch that this device's tune on this release starts from."""
    facts, release = visit.facts, visit.release
    rng = stream(facts.seed, Purpose.ADAPTER, facts.device, release.version)
    placement = visit.policy.placement.place(release.shapes)
    return new_patch(placement, release.shapes, release.version, rng)


def _obstacle(
    visit: Visit, night: Night, patch_bytes: int, ranks: Ranks, examples: list[Example]
) -> str:
    """Returns why this device cannot tune, as one word; empty if it can."""
    if not examples:
        return "empty_buffer"
    held = night.state.buffer_bytes + night.state.extra_bytes
    if held + patch_bytes > visit.policy.quota.total_bytes:
        return "patch_over_quota"
    longest = sorted((len(example.tokens) for example in examples), reverse=True)
    batch = longest[: visit.policy.tuning.batch]
    peak = memory_peak_bytes(visit.release.shapes, batch, ranks)
    if peak > USABLE_RAM * visit.facts.profile.ram_gb.value * 1e9:
        return "over_memory"
    return ""


def _tune(
    visit: Visit, night: Night, start: Patch, examples: list[Example], compute: Compute
) -> Night:
    facts, release, tuning = visit.facts, visit.release, visit.policy.tuning
    rng = stream(facts.seed, Purpose.TUNING, facts.device, release.version)
    batches = tuning.batches(examples, rng)
    result = compute.tune(
        TuneJob(
            release=release.path,
            start=start,
            batches=batches,
            learning_rate=tuning.learning_rate,
            clip=tuning.clip,
        )
    )
    ranks = {site: item.a.shape[0] for site, item in start.factors.items()}
    work = sum(
        (
            training_work(
                release.shapes,
                [len(example.tokens) for example in batch],
                sum(example.supervised for example in batch),
                ranks,
            )
            for batch in batches
        ),
        Work(),
    )
    return replace(
        night,
        state=replace(night.state, patch=result.patch),
        trained=result.patch,
        steps=len(batches),
        tokens=sum(len(example.tokens) for batch in batches for example in batch),
    ).charged(Stage.TUNE, train_cost(facts.profile, work))


def _upload(visit: Visit, night: Night) -> Night:
    delta = 0 if night.trained is None else night.trained.size_bytes
    cost = upload_cost(visit.facts.profile, delta + STATISTICS_BYTES)
    return _transferred(visit, night, Stage.UPLOAD, cost)


def _statistics(visit: Visit, night: Night) -> Statistics:
    return Statistics(
        outcome=Outcome(
            device=visit.facts.device,
            round=visit.round,
            release=night.state.release,
            profile=visit.facts.profile.name,
            decision=night.decision.action.value,
            reason=night.decision.reason,
        ),
        ledger=night.ledger,
        drift=night.decision.drift,
        strength=night.decision.strength,
        buffer_exchanges=len(night.state.buffer),
        buffer_bytes=night.state.buffer_bytes,
        stored_bytes=night.state.stored_bytes,
        tune_steps=night.steps,
        train_tokens=night.tokens,
    )
