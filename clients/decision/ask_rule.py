"""A device asks its rule of adaptation about a release."""

from __future__ import annotations

from typing import cast

from clients.adaptation.decision import FIRST_PATCH, Decision
from clients.adaptation.device_view import DeviceView
from clients.adaptation.protocol import Adaptation, DeviceRule, traits_of
from clients.night.order import NightOrder
from clients.state.kept_out import canaries, training_exchanges
from clients.state.state import DeviceState


def ask_rule(order: NightOrder, state: DeviceState) -> Decision:
    """Returns what the rule says about a release that is new to the device."""
    rule, patch, facts = order.policy.adaptation, state.patch, order.facts
    if not traits_of(rule).needs_view:
        return cast(Adaptation, rule).decide(order.release, patch)
    if patch is None:
        return FIRST_PATCH
    exchanges = len(training_exchanges(facts, rule, state))
    view = DeviceView(
        facts=facts,
        release=order.release,
        patch=patch,
        before=state.before,
        canaries=canaries(facts, rule, state),
        history=state.history,
        steps=order.policy.tuning.epoch_ends(max(1, exchanges))[-1],
        compute=order.compute,
    )
    return cast(DeviceRule, rule).decide(view)
