"""The fleet patch: what the fleet learned, as a patch that devices may start from.

It is the sum of the aggregates of all rounds, each a mean of deltas against the one before, cut to
a rank. Its factors carry the singular values in descending order, so the first components are the
best approximation of a lower rank.
"""

from __future__ import annotations

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Updates, add_updates, patch_of, updates_of

NONE, START = "none", "start"
USES = (NONE, START)
"""Whether devices get the fleet patch: not at all, or to start their tunes from."""


def check_use(use: str, rank: int) -> None:
    """Raises ValueError if a use is not among `USES`, or a rank is < 1."""
    if use not in USES:
        raise ValueError(f"fleet_patch must be one of {USES}, got {use!r}")
    if rank < 1:
        raise ValueError(f"fleet_rank must be >= 1, got {rank}")


def grow_fleet_patch(
    before: Patch | None, aggregate: Updates, rank: int, release: int
) -> Patch | None:
    """Returns the fleet patch behind a round; None as long as no device sent a delta.

    Args:
        before: The one that was sent to the devices.
        aggregate: What their deltas say together.
        rank: Largest rank at every site; also the patch's alpha, so its scale is 1 at full rank.
        release: Version of the release that the devices tuned.
    """
    earlier = {} if before is None else updates_of(before)
    found = dict(earlier)
    for site, update in aggregate.items():
        found[site] = add_updates([earlier[site], update]) if site in earlier else update
    if not found:
        return None
    short = {site: update.truncate(rank) for site, update in found.items()}
    return patch_of(short, release, float(rank))
