"""Mixture start: the entry that most of a user's exchanges read as, taken as far as they do.

XPerT places the mean of a user's exchanges and takes the nearest entry as it was tuned
(`clients.start.rules.Explained`). Here every exchange is placed, and an entry's share of them
says three things at once: which entry is the user's, whether there are two, and how much of the
patch to take. Entries are tuned until they are sure of one style; a user who is partly in others
is served best by a part of the patch (docs/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.start.nearest_entry import Start, WarmStart, place_user
from clients.start.rules import KEEPS, Asked, Found, brought, kept
from fleettune.catalogue.decomposition import Floats
from fleettune.catalogue.entry_shares import entry_shares
from fleettune.catalogue.manifest import CatalogueManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Starts from the entry with the largest share of the user's exchanges, or from two.

    Attributes:
        spread: Variance of an exchange about its entry; 1 is what the server saw of the entries'
            own answers, users scatter somewhat more.
        second: The second entry is added if its share is at least this much of the first one's;
            0: always, above 1: never.
        least: From scratch if the largest share is below that.
        strength: What a share is multiplied by for the weight of an entry's patch.
        exchanges: As `clients.start.nearest_entry.WarmStart`, as are the next two.
        new_tokens: As there.
        answers: As there.
        keep: Of two entries ``both``, or the ``heavier`` or ``lighter`` alone, to see what adding
            them is worth.

    Raises:
        ValueError: If a value breaks its rule.
    """

    spread: float = 1.5
    second: float = 0.6
    least: float = 0.2
    strength: float = 0.6
    exchanges: int = 40
    new_tokens: int = 48
    answers: str = "like"
    keep: str = "both"

    def __post_init__(self) -> None:
        if self.keep not in KEEPS:
            raise ValueError(f"start.keep must be one of {KEEPS}, got {self.keep!r}")
        for name in ("spread", "strength"):
            if not getattr(self, name) > 0:
                raise ValueError(f"start.{name} must be > 0, got {getattr(self, name)}")
        if not self.second >= 0:
            raise ValueError(f"start.second must be >= 0, got {self.second}")
        if not 0 <= self.least <= 1:
            raise ValueError(f"start.least must be a share from 0 to 1, got {self.least}")
        _ = self.looking

    @property
    def looking(self) -> WarmStart:
        """How the user's exchanges are placed."""
        return WarmStart(exchanges=self.exchanges, new_tokens=self.new_tokens, answers=self.answers)

    def find(self, asked: Asked) -> Found:
        """Returns one entry or two at the weight of their shares, or none where all are small."""
        manifest, how = asked.offer.manifest, self.looking
        placed = place_user(asked.exchanges, manifest, asked.release, how, asked.compute)
        places = manifest.compared(likes=self.answers == "like")
        shares = entry_shares(placed.points, places, self.spread)
        return brought(asked, placed, kept(shared_start(shares, manifest, self), self.keep))


def shared_start(shares: Floats, manifest: CatalogueManifest, how: Mixture) -> Start:
    """Returns the start that shares of the entries lead to; ties go to the first entry."""
    order: list[int] = np.argsort(-shares, kind="stable").tolist()
    first = float(shares[order[0]])
    two = len(order) > 1 and shares[order[1]] >= how.second * first
    chosen = () if first < how.least else tuple(order[: 1 + two])
    return Start(
        kind=("scratch", "single", "merged")[len(chosen)],
        entries=chosen,
        weights=tuple(how.strength * float(shares[entry]) for entry in chosen),
        wanted=tuple(manifest.entries[entry].digest for entry in chosen),
        distance=1 - float(shares[list(chosen or order[:1])].sum()),
    )
