"""Start view: what the observer sees of a device's start; the server never does."""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.device_view import nats_per_token
from clients.night.order import NightOrder
from clients.start.rules import FoundStart
from clients.state.state import DeviceState
from fleettune.catalogue.manifest import CORPUS
from fleettune.cost.energy import price
from fleettune.cost.ledger import Stage
from fleettune.cost.workload import Workload
from fleettune.data.style_corpora import corpus_name
from fleettune.data.styles import style_name
from fleettune.messages.report import Observation


def observe_start(
    order: NightOrder, state: DeviceState, seen: Observation, found: FoundStart, day: int
) -> Observation:
    """Returns an observation with what a first tune started from, scored before any step.

    Args:
        order: The device, and the catalogue that it was offered.
        state: What it holds.
        seen: What was observed of it otherwise.
        found: The start.
        day: A day that the device has not lived yet.
    """
    facts = order.facts
    later = order.population.day(facts.user, day)
    if state.held is None or not later:
        return seen
    encoder = facts.encoder(state.held)
    examples = tuple(encoder.example(exchange) for exchange in later)
    own = _own_entry(order)
    ledger = price(Workload().plus_all(found.entries), facts.prices)
    spent = ledger.total()
    return replace(
        seen,
        start_entries=len(found.names),
        start_right=None if own is None else int(found.names == (own,)),
        start_nll=nats_per_token(state.held, found.patch, examples, order.compute),
        start_j=spent.energy_j - ledger.of(Stage.IDLE).energy_j,
        finding_s=spent.time_s,
        start_bytes=spent.down_bytes,
    )


def _own_entry(order: NightOrder) -> str | None:
    """Returns what the entry of the user's style is called; None where entries are no styles."""
    user, offer, population = order.facts.user, order.catalogue, order.population
    own = style_name(population, user) or corpus_name(population, user)
    listed = () if offer is None else offer.manifest.entries
    named = any(entry.origin == CORPUS or entry.name == own for entry in listed)
    return own if named else None
