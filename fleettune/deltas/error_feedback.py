"""Error feedback: what a lossy codec left out is added to the device's next delta.

Seide et al. 2014; Stich et al. 2018 (arXiv:1809.07599) for sparsified gradients. Here residuals are
updates, not factors, as factors of two nights have nothing in common
(docs/methods.md#pitfalls-of-aggregation, pitfall 10): the residual is a patch, and the sum of a
night's delta and of the residual is factored anew, both factors carrying the singular values' root,
before its largest entries are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import Update, add_updates, patch_of, updates_of
from fleettune.deltas.codecs import Codec, TopK
from fleettune.deltas.frames import read_frame, write_frame
from fleettune.shapes import Site


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedDelta:
    """A delta that was written.

    Attributes:
        frame: Its bytes.
        residual: What it leaves out; None where nothing is fed back.
    """

    frame: bytes
    residual: Patch | None


def encode_delta(
    change: Patch, codec: Codec, residual: Patch | None, room_bytes: int
) -> EncodedDelta:
    """Returns a delta as it leaves the device, and what it leaves out.

    The residual has at most twice the delta's rank at every site, less where there is less room:
    the best approximation of that rank. A site that this delta does not adapt keeps its own.

    Args:
        change: The delta.
        codec: How it is written.
        residual: What earlier deltas left out.
        room_bytes: What the device has left for the new residual.
    """
    if not isinstance(codec, TopK):
        return EncodedDelta(frame=write_frame(change, codec), residual=None)
    own, left = updates_of(change), {} if residual is None else updates_of(residual)
    whole = {
        site: add_updates([update, left[site]] if site in left else [update])
        for site, update in own.items()
    }
    # written at the delta's own rank: what is sent does not grow with what was left out
    meant = {site: whole[site].truncate(own[site].rank, tolerance=1e-7) for site in own}
    target = patch_of(meant, change.release, change.alpha)
    frame = write_frame(target, codec)
    if not codec.feedback:
        return EncodedDelta(frame=frame, residual=None)
    written = updates_of(read_frame(frame, most_entries=target.size_bytes // 4))
    missed = {site: add_updates([whole[site], written[site].times(-1)]) for site in whole}
    ranks = {site: 2 * update.rank for site, update in own.items()}
    kept = {site: missed[site].truncate(ranks[site], tolerance=1e-7) for site in missed}
    kept |= {site: update for site, update in left.items() if site not in kept}
    return EncodedDelta(frame=frame, residual=_within(kept, change, room_bytes))


def _within(kept: dict[Site, Update], change: Patch, room_bytes: int) -> Patch | None:
    """Returns a residual that fits, its ranks halved until it does; None if nothing fits."""
    while kept:
        patch = patch_of(kept, change.release, change.alpha)
        if patch.size_bytes <= room_bytes:
            return patch
        if all(update.rank == 1 for update in kept.values()):
            return None
        kept = {site: update.truncate(max(1, update.rank // 2)) for site, update in kept.items()}
    return None
