"""shelving."""

from __future__ import annotations

from dataclasses import replace

from clients.night.order import NightOrder
from clients.policy import Quota
from clients.state.shelf import Shelf, Shelved
from clients.state.state import DeviceState
from fleettune.adapters.patch import Patch


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


def with_patch(
    order: NightOrder, state: DeviceState, patch: Patch, cache_bytes: int
) -> DeviceState:
    """Returns the state with a newly tuned patch; the one before goes to a shelf, if there is one.

    Args:
        order: Round and policy.
        state: What the device holds.
        patch: The patch, which names the release that was tuned.
        cache_bytes: Prefix cache beside which the others had to have room.
    """
    if not order.policy.quota.shelf:
        return replace(state, patch=patch)
    shelf, before = put_away(order, state), state.shelf.find(patch.release)
    version = 0 if before is None else before.version + 1
    if state.patch is not None and state.patch.release == patch.release:
        version = state.patch_version + 1
    # what was trained before on this release is worth less than its successor
    shelf = shelf.without(patch.release)
    tuned = replace(state, patch=patch, shelf=shelf, patch_version=version)
    return with_room(tuned, order.policy.quota, cache_bytes)


def put_away(order: NightOrder, state: DeviceState) -> Shelf:
    """Returns the shelf with the patch in use on it, where the device keeps any."""
    if state.patch is None or not order.policy.quota.shelf:
        return state.shelf
    used = Shelved(
        patch=state.patch,
        version=state.patch_version,
        used=order.round,
        history=state.history,
    )
    return state.shelf.without(used.key).load(used)
