"""Counterfactual: what a retune would have gained, or did, on the days to come.

The observer's work, for labels that a rule is judged by; no rule sees them, nothing is billed and
nothing of it is reported. Compared are two patches on the same release and the same later days: the
one that the device brought to its decision, and the one that a retune of that night makes. Where
the device reused, that retune is made on trial and thrown away; it starts from what the rule says,
with no end of the night. Where it retuned, the patch that it made is taken. So the label hangs on
the arm's own history, which another arm's gain does not.
"""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.decision import ON_TRIAL, Action, Decision
from clients.adaptation.protocol import LookAhead, traits_of
from clients.night.attendance import Tonight
from clients.night.night import Night
from clients.night.order import NightOrder
from clients.observer.evaluation import observe
from clients.retuning.retune import retune
from clients.state.state import DeviceState


def ask_observer(
    order: NightOrder, ahead: LookAhead, states: tuple[DeviceState, DeviceState]
) -> Decision:
    """Returns what the observer tells an oracle: does a retune serve the days to come better?

    Args:
        order: The night; nothing of this is billed.
        ahead: Its margin, and how far it looks.
        states: The device with its old patch, and with the one tuned on trial.
    """
    loss: list[float] = []
    # either patch would be in use: both are settled on the release held
    for state in (replace(each, settled=each.release) for each in states):
        seen = [observe(order, state, order.round + d) for d in range(1, ahead.days + 1)]
        known = [(s.nll, s.exchanges) for s in seen if s.nll is not None]
        if not known:
            return Decision(action=Action.REUSE, reason="nothing_to_foresee")
        loss.append(sum(nll * n for nll, n in known) / sum(n for _, n in known))
    gain = loss[0] - loss[1]
    helps = gain > ahead.margin
    return Decision(
        action=Action.RETUNE if helps else Action.REUSE,
        reason="retune_helps" if helps else "retune_does_not_help",
        gain=gain,
    )


def retune_gain(order: NightOrder, before: Night, after: Night) -> float | None:
    """Returns the nats per token by which a retune of this night helps on the days to come.

    None where nobody asks, where there was no old patch, no decision, no retune that the device
    could have made, or no exchange to come. An oracle's own number is taken as it is.

    Args:
        order: The night; `NightOrder.foresight_days` says how far to look.
        before: The night when the device was about to decide.
        after: The night when it was done.
    """
    if after.decision.gain is not None or not order.foresight_days:
        return after.decision.gain
    decided = after.decision.action in (Action.REUSE, Action.RETUNE)
    if not decided or before.over or before.state.patch is None:
        return None
    retuned = _retuned(order, before, after)
    if retuned is None:
        return None
    ahead = LookAhead(margin=0.0, days=order.foresight_days)
    return ask_observer(order, ahead, (before.state, retuned)).gain


def _retuned(order: NightOrder, before: Night, after: Night) -> DeviceState | None:
    """Returns the device with the patch of a retune of this night; None where it can have none."""
    if after.decision.action is Action.RETUNE:
        return None if after.trained is None else after.state
    endless = replace(order, tonight=Tonight())
    trial = replace(ON_TRIAL, start=traits_of(order.policy.adaptation).goes_on_from)
    tried = retune(endless, replace(before, decision=trial))
    return None if tried.trained is None else tried.state
