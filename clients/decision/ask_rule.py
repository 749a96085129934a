"""Weighing: a device asks its rule of adaptation, and what that means for a tune."""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.baselines import Oracle
from clients.adaptation.device_view import HoldingOut, KeptOut, Sight, Weighing
from clients.adaptation.rules import FIRST_PATCH, OLD, Action, Decision
from clients.observer.evaluation import observe
from clients.policy import AdaptationRule, DevicePolicy
from clients.state.state import DeviceState
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch, to_arrays
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute
from fleettune.releases.manifest import Manifest


def weighed(
    facts: Facts, release: Manifest, policy: DevicePolicy, state: DeviceState, compute: Compute
) -> Decision:
    """Returns what the rule says about a release that is new to the device."""
    rule, patch = policy.adaptation, state.patch
    if not isinstance(rule, Weighing):
        return rule.decide(release, patch)
    if patch is None:
        return FIRST_PATCH
    sight = Sight(
        facts=facts,
        release=release,
        patch=patch,
        before=state.before,
        canaries=canaries(facts, rule, state),
        recollection=state.recollection,
        steps=policy.tuning.epoch_ends(max(1, len(trained_on(facts, rule, state))))[-1],
        compute=compute,
    )
    return rule.weigh(sight)


def trained_on(facts: Facts, rule: AdaptationRule, state: DeviceState) -> tuple[Exchange, ...]:
    """Returns the exchanges that a tune may use: those answered that are not kept out."""
    kept_out = _kept_out(rule)
    if kept_out is None:
        return state.answered
    return tuple(e for e in state.answered if not kept_out.holds(facts, e))


def canaries(facts: Facts, rule: AdaptationRule, state: DeviceState) -> tuple[Exchange, ...]:
    """Returns the newest exchanges that the patch in use was not tuned on, in time order.

    That is what the rule keeps out of every tune; where it keeps out nothing, what came since.
    """
    kept_out, tuned = _kept_out(rule), state.recollection.tuned_day
    if kept_out is None or kept_out.share > 0 or tuned is None:
        return held_out(facts, rule, state)
    return tuple(e for e in state.answered if e.day > tuned)[-kept_out.most :]


def held_out(facts: Facts, rule: AdaptationRule, state: DeviceState) -> tuple[Exchange, ...]:
    """Returns the newest exchanges that a rule keeps out of every tune, in time order."""
    kept_out = _kept_out(rule)
    if kept_out is None:
        return ()
    return tuple(e for e in state.answered if kept_out.holds(facts, e))[-kept_out.most :]


def held_out_examples(
    facts: Facts, release: Manifest, policy: DevicePolicy, state: DeviceState
) -> tuple[Example, ...]:
    """Returns what is kept out of every tune as a release reads it."""
    encoder = facts.encoder(release)
    return tuple(map(encoder.example, held_out(facts, policy.adaptation, state)))


def budgeted(policy: DevicePolicy, decision: Decision) -> DevicePolicy:
    """Returns the policy with the steps of this retune."""
    if decision.steps is None:
        return policy
    return replace(policy, tuning=replace(policy.tuning, steps=decision.steps, epochs=None))


def continued(old: Patch | None, fresh: Patch, decision: Decision) -> Patch | None:
    """Returns the old patch to go on from where that is wanted and fits, else None.

    It fits if every factor has the shape that the fresh patch has, and every alpha is the same.
    """
    if decision.start != OLD or old is None or _layout(old) != _layout(fresh):
        return None
    return replace(old, release=fresh.release)


def foreseen(
    facts: Facts,
    rule: Oracle,
    states: tuple[DeviceState, DeviceState],
    today: int,
    compute: Compute,
) -> Decision:
    """Returns what the observer tells an oracle: does a retune serve the days to come better?

    Args:
        facts: The device.
        rule: Its margin, and how far it looks.
        states: The device with its old patch, and with the one tuned on trial.
        today: The last day that the device has lived.
        compute: Its processor; nothing of this is charged.
    """
    loss: list[float] = []
    # either patch would be in use: both are settled on the release held
    for state in (replace(each, settled=each.release) for each in states):
        seen = [observe(facts, state, today + d, rule, compute) for d in range(1, rule.days + 1)]
        known = [(s.nll, s.exchanges) for s in seen if s.nll is not None]
        if not known:
            return Decision(action=Action.REUSE, reason="nothing_to_foresee")
        loss.append(sum(nll * n for nll, n in known) / sum(n for _, n in known))
    gain = loss[0] - loss[1]
    helps = gain > rule.margin
    return Decision(
        action=Action.RETUNE if helps else Action.REUSE,
        reason="retune_helps" if helps else "retune_does_not_help",
        gain=gain,
    )


def _kept_out(rule: AdaptationRule) -> KeptOut | None:
    return rule.kept_out if isinstance(rule, HoldingOut) else None


def _layout(patch: Patch) -> object:
    shapes = {name: array.shape for name, array in to_arrays(patch).items()}
    return patch.alpha, [tied.alpha for tied in patch.ties], shapes
