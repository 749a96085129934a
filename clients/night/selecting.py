"""What arrived since the last night is read, selected and asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clients.adaptation.protocol import traits_of
from clients.night.order import NightOrder
from clients.policy import DevicePolicy
from clients.selection.annotation import ask
from clients.selection.buffer import Arrival, fit_quota, pack_vector
from clients.selection.rules import Embeddings, Priority, embeddings_of
from clients.state.state import DeviceState, with_buffer
from clients.work.facts import Facts
from clients.work.stage_work import embed_work, serve_work
from fleettune.cost.workload import Entry
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import EmbedJob
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream

EMBEDDING_BYTES = 4
"""Bytes per number of an embedding that retrieval keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """What happened since the last night.

    Attributes:
        release: The release with which the device reads it.
        exchanges: In time order.
        examples: The same as tokens.
    """

    release: Manifest
    exchanges: tuple[Exchange, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionCounts:
    """What came of the arrivals, as counts (see `fleettune.messages.report.Statistics`)."""

    arrived: int = 0
    accepted: int = 0
    asked: int = 0


def read_days(order: NightOrder, state: DeviceState) -> Arrivals:
    """Returns the exchanges of all days since the last one that was read."""
    facts = order.facts
    # before its first download a device has the release that it was made with: the newest
    release = order.release if state.held is None else state.held
    exchanges = tuple(
        exchange
        for day in range(state.last_day + 1, order.round + 1)
        for exchange in order.population.day(facts.user, day)
    )
    examples = tuple(map(facts.encoder(release).example, exchanges))
    return Arrivals(release=release, exchanges=exchanges, examples=examples)


def reembed(
    order: NightOrder, state: DeviceState, arrived: Arrivals
) -> tuple[DeviceState, list[Entry]]:
    """Returns the state with embeddings lent to what is held, and what making them asked."""
    policy, release = order.policy, arrived.release
    if not (lends(policy) and state.buffer and arrived.exchanges):
        return state, []
    encoder = order.facts.encoder(release)
    prompts = tuple(texts(policy, [encoder.example(exchange) for exchange in state.buffer]))
    found = order.compute.embed(EmbedJob(release=release.path, patch=None, prompts=prompts, skip=1))
    items = tuple(
        replace(item, note=replace(item.note, vector=pack_vector(vector), lent=True))
        for item, vector in zip(state.items, found.vectors, strict=True)
    )
    entries = embed_work(order.facts, release, list(map(len, prompts)))
    return with_buffer(state, items, state.extra_bytes), entries


def read_arrivals(order: NightOrder, arrived: Arrivals) -> list[Arrival]:
    """Returns the arrivals with what one pass over them says, where the selection asks for it."""
    prompts = tuple(texts(order.policy, arrived.examples))
    if not prompts:
        return [Arrival(exchange=exchange) for exchange in arrived.exchanges]
    # the first token draws attention to itself whatever the text is
    job = EmbedJob(release=arrived.release.path, patch=None, prompts=prompts, skip=1)
    found = order.compute.embed(job)
    return [
        Arrival(
            exchange=exchange,
            vector=pack_vector(vector),
            entropy=float(entropy),
            tokens=int(tokens),
            lent=lends(order.policy),
        )
        for exchange, vector, entropy, tokens in zip(
            arrived.exchanges, found.vectors, found.entropy, found.tokens, strict=True
        )
    ]


def select(
    order: NightOrder, state: DeviceState, arrived: Arrivals, readings: Sequence[Arrival]
) -> tuple[DeviceState, SelectionCounts]:
    """Returns the state with what is held from now on, and what came of the arrivals."""
    policy, quota = order.policy, order.policy.quota
    patch = 0 if state.patch is None else state.patch.size_bytes
    patch += state.beside_bytes - state.extra_bytes
    room = min(quota.buffer_bytes, quota.total_bytes - patch)
    wanted = policy.selection.keep(state.items, readings, room, keyed_numbers(order.facts))
    kept = fit_quota(wanted, room)
    beside = 0
    if traits_of(policy.adaptation).neighbours:
        beside = EMBEDDING_BYTES * arrived.release.shapes.hidden
        kept = fit_quota(kept, quota.total_bytes - patch, beside)
    seen = state.seen + len(readings)
    before = {item.order: item.note.asked for item in state.items}
    kept, asked = ask(kept, before, policy.annotation.left(seen, state.asked))
    kept = tuple(replace(item, note=item.note.without_lent()) for item in kept)
    state = with_buffer(state, kept, beside * len(kept))
    counts = SelectionCounts(
        arrived=len(readings),
        accepted=sum(item.order not in before for item in kept),
        asked=asked,
    )
    return replace(state, seen=seen, asked=state.asked + asked), counts


def serving_work(order: NightOrder, state: DeviceState, arrived: Arrivals) -> list[Entry]:
    """Returns what reading the lived days and the user's own questions of them asked.

    Args:
        order: The device, which serves with tonight's release.
        state: What it holds after the selection.
        arrived: The exchanges of those days.
    """
    facts, release, traits = order.facts, order.release, traits_of(order.policy.adaptation)
    entries: list[Entry] = []
    embedded = texts(order.policy, arrived.examples)
    if embedded:
        entries += embed_work(facts, release, list(map(len, embedded)))
    if traits.label_prior is not None:
        return entries  # it answers without the model
    context = 0.0
    if traits.neighbours and state.answered:
        turns = [len(example.tokens) for example in order.examples(state.answered)]
        context = traits.neighbours * sum(turns) / len(turns)
        entries += embed_work(facts, release, [one.prompt for one in arrived.examples])
    if traits.copier is not None:
        return entries  # it answers without the model, which at most finds the nearest exchange
    return [*entries, *serve_work(facts, release, state.applied, arrived.examples, context)]


def texts(policy: DevicePolicy, examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """Returns the tokens of what the selection wants embedded; nothing where it wants none."""
    if embeddings_of(policy.selection) == Embeddings.NOTHING:
        return []
    return [example.tokens for example in examples]


def lends(policy: DevicePolicy) -> bool:
    """Returns whether embeddings are made again for every selection instead of stored."""
    return embeddings_of(policy.selection) == Embeddings.AGAIN


def keyed_numbers(facts: Facts) -> Priority:
    """Returns the random number of every exchange of a device, the same for ever."""
    known: dict[int, float] = {}

    def of(exchange: Exchange) -> float:
        # some rules ask for the number of every held exchange with every arrival
        if exchange.order not in known:
            rng = stream(facts.seed, Purpose.SELECTION, facts.device, exchange.order)
            known[exchange.order] = float(rng.random())
        return known[exchange.order]

    return of
