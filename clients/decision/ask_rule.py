"""A device asks its rule of adaptation about a release."""

from __future__ import annotations

from typing import cast

from clients.adaptation.decision import FIRST_PATCH, Action, Decision
from clients.adaptation.device_view import DeviceView
from clients.adaptation.protocol import Adaptation, DeviceRule, traits_of
from clients.night.order import NightOrder
from clients.state.kept_out import canaries
from clients.state.state import DeviceState
from clients.work.facts import Facts
from clients.work.stage_work import ranks_of, score_work
from fleettune.adapters.patch import Patch
from fleettune.cost.ledger import Stage
from fleettune.cost.work import Work
from fleettune.cost.workload import Entry, Phase, computing, moving
from fleettune.messages.report import WORD
from fleettune.releases.manifest import Manifest


def ask_rule(order: NightOrder, state: DeviceState) -> Decision:
    """Returns what the rule says about a release that is new to the device."""
    rule, patch, facts = order.policy.adaptation, state.patch, order.facts
    if not traits_of(rule).needs_view:
        return _checked(rule, cast(Adaptation, rule).decide(order.release, patch))
    if patch is None:
        return FIRST_PATCH
    view = DeviceView(
        facts=facts,
        release=order.release,
        patch=patch,
        before=state.before,
        canaries=canaries(facts, rule, state),
        history=state.history,
        compute=order.compute,
    )
    return _checked(rule, cast(DeviceRule, rule).decide(view))


def _checked(rule: object, said: object) -> Decision:
    """Returns what a rule said, if it is a decision.

    Raises:
        ValueError: Naming the rule's class and method, and what it returned.
    """
    name = f"{type(rule).__name__}.decide"
    if not isinstance(said, Decision):
        raise ValueError(f"{name} must return a Decision, got {said!r:.200}")
    # nothing checks the types of a dataclass that a user's rule makes
    action, reason = cast(object, said.action), cast(object, said.reason)
    if not isinstance(action, Action):
        raise ValueError(f"{name} must return a Decision with an Action, got {action!r:.80}")
    if not isinstance(reason, str) or not WORD.fullmatch(reason):
        raise ValueError(
            f"{name} must give its reason as one short lower-case word such as patch_is_young, got "
            f"{said.reason!r:.80}"
        )
    return said


def decision_work(
    facts: Facts, release: Manifest, patch: Patch | None, decision: Decision
) -> list[Entry]:
    """Returns what a decision read and computed."""
    ranks, own = ranks_of(patch), release.shapes
    shared = () if patch is None else patch.shared
    read_bytes = facts.priced.patch_bytes(own, ranks, decision.read_bytes, shared)
    computed = facts.priced.dense_work(own, ranks, Work(flop=decision.work_flop))
    weights_bytes = facts.priced.bytes_per_weight * decision.read_weights
    weights = facts.priced.dense_work(own, ranks, Work(traffic_bytes=weights_bytes))
    return [
        (Stage.CHECK, Phase.READ, moving(read_bytes + weights.traffic_bytes)),
        (Stage.CHECK, Phase.FORWARD, computing(computed)),
        *(entry for each in decision.passes for entry in score_work(facts, release, ranks, each)),
    ]
