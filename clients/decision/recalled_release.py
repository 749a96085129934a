"""Returning: which patches stay on the shelf, and which one serves a release that comes back.

A roll-out that recalls a release sends its first cohort back to the one before. A device that kept
the patch of that release takes it into use again, to the byte, and neither asks its rule nor tunes.
"""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.decision import Action, Decision, PatchHistory
from clients.decision.ask_rule import ask_rule
from clients.night.night import Night
from clients.night.order import NightOrder
from clients.night.shelving import put_away, with_room
from clients.state.state import DeviceState
from fleettune.messages.report import BACK
from fleettune.releases.manifest import Manifest


def has_had(state: DeviceState, release: Manifest) -> bool:
    """Returns whether a device had a release before: it did something about that or a later one."""
    return release.version < state.settled or state.shelf.find(release.version) is not None


def restore_patch(order: NightOrder, state: DeviceState) -> DeviceState:
    """Returns the state with that patch in use which tonight's release can be decided about.

    That is the release's own where the device kept it and has room for it, else the one in use, if
    it is of an earlier release, else the newest such one on the shelf. None is in use where all are
    of later releases: no rule could weigh one, for a release knows nothing of those behind it.
    """
    version, present = order.release.version, state.patch
    room = order.policy.quota.total_bytes - state.buffer_bytes - state.beside_bytes
    known = [
        item
        for item in state.shelf.patches
        if item.patch.release <= version and item.patch.size_bytes <= room
    ]
    taken = max(known, key=lambda item: item.patch.release, default=None)
    has_own = taken is not None and taken.patch.release == version
    if present is not None and present.release <= version and not has_own:
        return state
    shelf = put_away(order, state)
    if taken is None:
        gone = replace(state, patch=None, shelf=shelf, history=PatchHistory(), patch_version=0)
        return with_room(gone, order.policy.quota)
    loaded = replace(
        state,
        patch=taken.patch,
        shelf=shelf.without(taken.key),
        history=taken.history,
        patch_version=taken.version,
    )
    return with_room(loaded, order.policy.quota)


def decide_again(order: NightOrder, state: DeviceState) -> Decision:
    """Returns what a device does about a release that came back.

    Its own patch is loaded; about another one, or none, the rule is asked as ever.
    """
    patch = state.patch
    if patch is None or patch.release != order.release.version:
        return ask_rule(order, state)
    return Decision(
        action=Action.REUSE,
        reason="own_patch",
        read_bytes=patch.size_bytes,
        history=state.history,
    )


def mark_recalled(night: Night) -> Night:
    """Returns the night with reasons that begin with `BACK`: the server counts no device twice."""
    decision = replace(night.decision, reason=f"{BACK}{night.decision.reason}")
    return replace(night, decision=decision)
