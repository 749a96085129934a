"""Download: a new release in full, or what changed since the one that the device holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from clients.policy import DevicePolicy
from clients.state.shelf import EMPTY
from clients.state.state import DeviceState
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import delta
from fleettune.cost.ledger import Stage
from fleettune.cost.workload import Entry, Phase, moving, transferring
from fleettune.deltas.error_feedback import EncodedDelta, encode_delta
from fleettune.releases.manifest import Manifest


class Payload(StrEnum):
    """What brought a new release to a device in a night."""

    NONE = "none"
    FULL = "full"
    DELTA = "delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A way to a release.

    Attributes:
        payload: What is received.
        entries: What that asks of the device.
    """

    payload: Payload
    entries: list[Entry]


def download(facts: Facts, release: Manifest, held: Manifest | None) -> Download:
    """Returns the way to a release that receives the fewest bytes, as priced.

    The release in full is received and written. A delta is received, the old weights are read and
    the new ones written; the sums themselves are left out, storage is slower. A device that skipped
    releases takes the delta since the one that it holds, where that is on offer.

    Args:
        facts: The device.
        release: The release that it is to have.
        held: The one that it has; None before the first.
    """
    full_bytes = stored_bytes(facts, release)
    written: Entry = (Stage.DOWNLOAD, Phase.WRITE, moving(full_bytes))
    delta = None if held is None else release.delta_since(held.version)
    if held is not None and delta is not None:
        delta_bytes = facts.priced.delta_bytes(
            release.shapes, release.size_bytes, delta.size_bytes, release.bits
        )
        if delta_bytes < full_bytes:
            read: Entry = (Stage.DOWNLOAD, Phase.READ, moving(stored_bytes(facts, held)))
            received: Entry = (Stage.DOWNLOAD, Phase.RECEIVE, transferring(delta_bytes))
            return Download(payload=Payload.DELTA, entries=[received, read, written])
    received = (Stage.DOWNLOAD, Phase.RECEIVE, transferring(full_bytes))
    return Download(payload=Payload.FULL, entries=[received, written])


def stored_bytes(facts: Facts, release: Manifest) -> float:
    """Returns the bytes of a release's weights, on the wire and in storage, as priced."""
    return facts.priced.release_bytes(release.shapes, release.size_bytes, release.bits)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WrittenDelta:
    """A delta that is ready to be sent.

    Attributes:
        change: The delta.
        sent: Its frame, and what that leaves out.
    """

    change: Patch
    sent: EncodedDelta


def write_delta(
    policy: DevicePolicy, state: DeviceState, trained: Patch | None, fleet_part: Patch | None
) -> WrittenDelta | None:
    """Returns the delta of a trained patch, None without one.

    Args:
        policy: The device's choices: how deltas are coded, what may be kept.
        state: What it holds, the trained patch included.
        trained: The patch.
        fleet_part: The part of the fleet patch that the tune started from.
    """
    if trained is None:
        return None
    change = delta(trained, fleet_part)
    alone = replace(state, residual=None, shelf=EMPTY)
    room = policy.quota.total_bytes - alone.stored_bytes
    return WrittenDelta(
        change=change, sent=encode_delta(change, policy.codec, state.residual, room)
    )
