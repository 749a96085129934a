"""What the observer tells an oracle, who alone may ask it."""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.decision import Action, Decision
from clients.adaptation.protocol import LookAhead
from clients.night.order import NightOrder
from clients.observer.evaluation import observe
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
