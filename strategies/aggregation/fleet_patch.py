"""The fleet patch: what the fleet learned, as a patch that devices may start from.

It is the sum of the aggregates of all rounds, each a mean of deltas against the one before, cut to
a rank. Its factors carry the singular values in descending order, so the first components are the
best approximation of a lower rank. It can be folded into the next release's weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Updates, add_updates, patch_of, updates_of
from fleettune.shapes import Site

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


def fold_fleet_patch(
    weights: Mapping[Site, NDArray[np.float32]], fleet: Patch
) -> dict[Site, NDArray[np.float32]]:
    """Returns a release's matrices, ``(n_out, n_in)``, with the fleet patch added to them.

    Raises:
        ValueError: If the patch adapts a matrix that is not there, or one of another shape.
    """
    found = dict(weights)
    for site, update in updates_of(fleet).items():
        shape = update.left.shape[0], update.right.shape[1]
        if site not in weights or weights[site].shape != shape:
            there = None if site not in weights else weights[site].shape
            raise ValueError(f"the release must have {site} as {shape}, got {there}")
        found[site] = (weights[site].astype(np.float64) + update.dense()).astype(np.float32)
    return found
