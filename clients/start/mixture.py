"""Mixture start: which share of a user's exchanges reads as each entry of a catalogue.

XPerT places the mean of a user's exchanges and takes the nearest entry as it was tuned
(`clients.start.nearest_entry`). Here every exchange is placed, and an entry's share of them says
three things at once: which entry is the user's, whether there are two, and how much of the patch to
take. Entries are tuned until they are sure of one style; a user who is partly in others is served
best by a part of the patch (docs/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.start.placing import LIKE, Comparison, Start, fetch_start, place_user
from clients.start.rules import FoundStart, StartContext
from fleettune.catalogue.decomposition import Floats
from fleettune.catalogue.manifest import CatalogueManifest

ITERATIONS = 100
"""Of expectation and maximisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Classifies each exchange to a catalogue entry; starts from the one with the largest share.

    The entry's patch is scaled by that share. A second entry is added if its share is near.

    Attributes:
        spread: Variance of an exchange about its entry; 1 is what the server saw of the entries'
            own answers, users scatter somewhat more.
        second: The second entry is added if its share is at least this much of the first one's;
            0: always, above 1: never.
        least: From scratch if the largest share is below that.
        strength: What a share is multiplied by for the weight of an entry's patch.
        exchanges: As `clients.start.placing.Comparison`, as are the next two.
        new_tokens: As there.
        answers: As there.

    Raises:
        ValueError: If a value breaks its rule.
    """

    spread: float = 1.5
    second: float = 0.6
    least: float = 0.2
    strength: float = 0.6
    exchanges: int = 40
    new_tokens: int = 48
    answers: str = LIKE

    def __post_init__(self) -> None:
        for name in ("spread", "strength"):
            if not getattr(self, name) > 0:
                raise ValueError(f"start.{name} must be > 0, got {getattr(self, name)}")
        if not self.second >= 0:
            raise ValueError(f"start.second must be >= 0, got {self.second}")
        if not 0 <= self.least <= 1:
            raise ValueError(f"start.least must be a share from 0 to 1, got {self.least}")
        self.comparison()

    def comparison(self) -> Comparison:
        """Returns what the user's answers are compared with."""
        return Comparison(
            exchanges=self.exchanges, new_tokens=self.new_tokens, answers=self.answers
        )

    def find(self, context: StartContext) -> FoundStart:
        """Returns one entry or two at the weight of their shares, or none where all are small."""
        manifest, how = context.offer.manifest, self.comparison()
        placed = place_user(context.exchanges, manifest, context.release, how, context.compute)
        shares = entry_shares(placed.points, manifest.compared(likes=how.likes), self.spread)
        return fetch_start(context, placed, start_from_shares(shares, manifest, self))


def start_from_shares(shares: Floats, manifest: CatalogueManifest, how: Mixture) -> Start:
    """Returns the start that shares of the entries lead to; ties go to the first entry."""
    order: list[int] = np.argsort(-shares, kind="stable").tolist()
    first = float(shares[order[0]])
    two = len(order) > 1 and shares[order[1]] >= how.second * first
    chosen = () if first < how.least else tuple(order[: 1 + two])
    return Start(
        entries=chosen,
        weights=tuple(how.strength * float(shares[entry]) for entry in chosen),
        wanted=tuple(manifest.entries[entry].digest for entry in chosen),
        distance=1 - float(shares[list(chosen or order[:1])].sum()),
    )


def entry_shares(points: Floats, places: Floats, spread: float) -> Floats:
    """Returns the share of every entry in a user's exchanges, ``(entries,)``; they sum to 1.

    Each exchange is taken to be one entry's, scattered around it as the server saw the entry's own
    answers scatter. The shares are those that make the exchanges likeliest: maximum likelihood of a
    mixture with known components, by expectation and maximisation (Dempster, Laird and Rubin 1977).

    Args:
        points: Where single exchanges stand, ``(exchanges, n)``.
        places: Where entries stand, ``(entries, n)``.
        spread: Variance of an exchange about its entry along every coordinate.

    Raises:
        ValueError: If there is no exchange or no entry, or the variance is not positive.
    """
    if not len(points) or not len(places):
        raise ValueError(f"shares need exchanges and entries, got {len(points)} and {len(places)}")
    if not spread > 0:
        raise ValueError(f"start.spread must be > 0, got {spread}")
    squares = np.square(points[:, None] - places[None]).sum(axis=2) / spread
    # likelihoods up to a factor per exchange, which no share depends on
    likely = np.exp((squares.min(axis=1, keepdims=True) - squares) / 2)
    shares = np.full(len(places), 1 / len(places))
    for _ in range(ITERATIONS):
        joint = likely * shares
        shares = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares
