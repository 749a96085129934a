"""Returning: which patches stay on the shelf, and which one serves a release that comes back.

A roll-out that recalls a release sends its first cohort back to the one before. A device that kept
the patch of that release takes it into use again, to the byte, and neither asks its rule nor tunes.
"""

from __future__ import annotations

from dataclasses import replace

from clients.adaptation.recollection import Recollection
from clients.adaptation.rules import Action, Decision
from clients.decision.ask_rule import weighed
from clients.night.night import Night, Visit
from clients.policy import Quota
from clients.state.shelf import Shelf, Shelved
from clients.state.state import DeviceState
from fleettune.adapters.patch import Patch
from fleettune.jobs.jobs import Compute
from fleettune.messages.report import BACK
from fleettune.releases.manifest import Manifest


def with_room(state: DeviceState, quota: Quota, needed_bytes: int = 0) -> DeviceState:
    """Returns the state without those on its shelf for which there is no room.

    Args:
        state: What the device holds.
        quota: What it may keep.
        needed_bytes: What else it has to hold tonight.
    """
    if not state.shelf.patches:
        return state
    others = state.stored_bytes - state.shelf.size_bytes + needed_bytes
    return replace(state, shelf=state.shelf.within(quota.total_bytes - others))


def with_patch(visit: Visit, state: DeviceState, patch: Patch, cache_bytes: int) -> DeviceState:
    """Returns the state with a newly tuned patch; the one before goes to a shelf, if there is one.

    Args:
        visit: Round and policy.
        state: What the device holds.
        patch: The patch, which names the release that was tuned.
        cache_bytes: Prefix cache beside which the others had to have room.
    """
    if not visit.policy.quota.shelf:
        return replace(state, patch=patch)
    shelf, before = _put_away(visit, state), state.shelf.find(patch.release)
    version = 0 if before is None else before.version + 1
    if state.patch is not None and state.patch.release == patch.release:
        version = state.patch_version + 1
    # what was trained before on this release is worth less than its successor
    shelf = shelf.without(patch.release)
    tuned = replace(state, patch=patch, shelf=shelf, patch_version=version)
    return with_room(tuned, visit.policy.quota, cache_bytes)


def has_had(state: DeviceState, release: Manifest) -> bool:
    """Returns whether a device had a release before: it did something about that or a later one."""
    return release.version < state.settled or state.shelf.find(release.version) is not None


def brought_back(visit: Visit, state: DeviceState) -> DeviceState:
    """Returns the state with that patch in use which tonight's release can be decided about.

    That is the release's own where the device kept it and has room for it, else the one in use, if
    it is of an earlier release, else the newest such one on the shelf. None is in use where all are
    of later releases: no rule could weigh one, for a release knows nothing of those behind it.
    """
    version, present = visit.release.version, state.patch
    room = visit.policy.quota.total_bytes - state.buffer_bytes - state.beside_bytes
    known = [
        item
        for item in state.shelf.patches
        if item.patch.release <= version and item.patch.size_bytes <= room
    ]
    taken = max(known, key=lambda item: item.patch.release, default=None)
    has_own = taken is not None and taken.patch.release == version
    if present is not None and present.release <= version and not has_own:
        return state
    shelf = _put_away(visit, state)
    if taken is None:
        gone = replace(state, patch=None, shelf=shelf, recollection=Recollection(), patch_version=0)
        return with_room(gone, visit.policy.quota)
    loaded = replace(
        state,
        patch=taken.patch,
        shelf=shelf.without(*taken.key),
        recollection=taken.recollection,
        patch_version=taken.version,
    )
    return with_room(loaded, visit.policy.quota)


def weighed_again(visit: Visit, state: DeviceState, compute: Compute) -> Decision:
    """Returns what a device does about a release that came back.

    Its own patch is loaded; about another one, or none, the rule is asked as ever.
    """
    patch = state.patch
    if patch is None or patch.release != visit.release.version:
        return weighed(visit.facts, visit.release, visit.policy, state, compute)
    return Decision(
        action=Action.REUSE,
        reason="own_patch",
        read_bytes=patch.size_bytes,
        recollection=state.recollection,
    )


def told_again(night: Night) -> Night:
    """Returns the night with reasons that begin with `BACK`: the server counts no device twice."""
    due = night.state.due
    if due is not None:
        due = replace(due, reason=f"{BACK}{due.reason}")
    decision = replace(night.decision, reason=f"{BACK}{night.decision.reason}")
    return replace(night, decision=decision, state=replace(night.state, due=due))


def _put_away(visit: Visit, state: DeviceState) -> Shelf:
    """Returns the shelf with the patch in use on it, where the device keeps any."""
    if state.patch is None or not visit.policy.quota.shelf:
        return state.shelf
    used = Shelved(
        patch=state.patch,
        version=state.patch_version,
        used=visit.round,
        recollection=state.recollection,
    )
    return state.shelf.without(*used.key).load(used)
