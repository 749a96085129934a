"""The delta of a tune: what leaves the device, and what stays as its residual."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clients.policy import DevicePolicy
from clients.state.shelf import EMPTY
from clients.state.state import DeviceState
from fleettune.adapters.patch import Patch
from fleettune.adapters.update import delta
from fleettune.deltas.error_feedback import Sent, send


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    """A delta that is ready to be sent.

    Attributes:
        change: The delta.
        sent: Its frame, and what that leaves out.
    """

    change: Patch
    sent: Sent


def write_delta(
    policy: DevicePolicy, state: DeviceState, trained: Patch | None, begun: Patch | None
) -> Written | None:
    """Returns the delta of a trained patch, None without one.

    Args:
        policy: The device's choices: how deltas are coded, what may be kept.
        state: What it holds, the trained patch included.
        trained: The patch.
        begun: What of the fleet patch the tune started from.
    """
    if trained is None:
        return None
    change = delta(trained, begun)
    alone = replace(state, residual=None, shelf=EMPTY)
    room = policy.quota.total_bytes - alone.stored_bytes
    return Written(change=change, sent=send(change, policy.codec, state.residual, room))
