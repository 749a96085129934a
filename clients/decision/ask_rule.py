"""Weighing: a device asks its rule of adaptation, and what that means for a tune."""

from __future__ import annotations

from clients.adaptation.decision import FIRST_PATCH, Decision
from clients.adaptation.device_view import DeviceRule, DeviceView
from clients.policy import DevicePolicy
from clients.state.kept_out import canaries, training_exchanges
from clients.state.state import DeviceState
from clients.work.facts import Facts
from fleettune.jobs.jobs import Compute
from fleettune.releases.manifest import Manifest


def ask_rule(
    facts: Facts, release: Manifest, policy: DevicePolicy, state: DeviceState, compute: Compute
) -> Decision:
    """Returns what the rule says about a release that is new to the device."""
    rule, patch = policy.adaptation, state.patch
    if not isinstance(rule, DeviceRule):
        return rule.decide(release, patch)
    if patch is None:
        return FIRST_PATCH
    view = DeviceView(
        facts=facts,
        release=release,
        patch=patch,
        before=state.before,
        canaries=canaries(facts, rule, state),
        history=state.history,
        steps=policy.tuning.epoch_ends(max(1, len(training_exchanges(facts, rule, state))))[-1],
        compute=compute,
    )
    return rule.weigh(view)
