"""Expansion: a tune on the buffer and the pairs made from it, within quota and memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clients.night.order import NightOrder
from clients.retuning.plan import open_context, replan_tune, split_holdout
from clients.state.kept_out import training_exchanges
from clients.state.state import DeviceState
from clients.synthesis.rules import Draw, Source
from clients.tuning.plan import TunePlan
from clients.work.facts import Facts
from clients.work.stage_work import synthesise_work
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream


def add_pairs(order: NightOrder, state: DeviceState, plan: TunePlan) -> TunePlan:
    """Returns a tune's plan with synthetic pairs, and with what making them asks of the device.

    The placement stands unless a probing rule's limits do not allow the longer tune: then it places
    anew, by the same probes. Pairs take what is left of the quota beside buffer and patch, the one
    that writes them or the one that is trained, and none is used if a step with them would not fit
    the memory. None is made from what the tune holds out. Pairs and tuning are one piece of work,
    for the pairs are gone with the tune.
    """
    facts, release, policy = order.facts, order.release, order.policy
    size_bytes = plan.placement.size_bytes(release.shapes)
    present = 0 if state.patch is None else state.patch.size_bytes
    held = state.buffer_bytes + state.beside_bytes + state.shelf.size_bytes
    free = policy.quota.total_bytes - held
    own = training_exchanges(facts, policy.adaptation, state)
    source = Source(
        buffer=split_holdout(order, own)[0],
        answers=frozenset(answer.response for answer in order.population.answers),
        room_bytes=free - max(size_bytes, present),
        release=release.path,
        encoder=facts.encoder(release),
        patch=state.patch,
        draw=_draw(facts, release),
    )
    made = policy.synthesis.expand(source, order.compute)
    if not made.candidates:
        return plan
    longer: TunePlan | None = None
    if made.pairs:
        context = replace(
            open_context(order, state, order.examples(own), order.examples(made.pairs)),
            room_bytes=free - sum(pair.size_bytes for pair in made.pairs),
            preparation=plan.context.preparation,
        )
        longer = replan_tune(policy.placement, context, plan.placement)
    return replace(
        longer or plan,
        making=synthesise_work(facts, release, state.patch, made.writings),
        synthesised=made.candidates,
        synthetic_kept=0 if longer is None else len(made.pairs),
    )


def _draw(facts: Facts, release: Manifest) -> Draw:
    def of(order: int, number: int) -> np.random.Generator:
        keys = (facts.device, release.version, order, number)
        return stream(facts.seed, Purpose.SYNTHESIS, *keys)

    return of
