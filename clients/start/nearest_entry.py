"""Nearest entry: starts from the entry nearest to the mean of a user's exchanges (XPerT).

The nearest entry is taken as it is if it is near enough, else the two whose non-negative sum is
nearest, else the tune starts from scratch (docs/methods.md#nearest-entry-or-sum-of-two).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from clients.start.placing import LIKE, Comparison, Start, fetch_start, place_user
from clients.start.rules import FoundStart, StartContext
from fleettune.adapters.updates import nonnegative_pair
from fleettune.catalogue.comparing import cosine_distances
from fleettune.catalogue.decomposition import Floats
from fleettune.catalogue.manifest import CatalogueManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestEntry:
    """Starts from the nearest entry, or from the nearest sum of two.

    Attributes:
        single_within: Largest distance of one entry that is taken as it is.
        merged_within: Largest distance of the sum of two; beyond it, scratch.
        exchanges: As `clients.start.placing.Comparison`, as are the next two.
        new_tokens: As there.
        answers: As there.

    Raises:
        ValueError: If a value breaks its rule.
    """

    single_within: float = 0.4
    merged_within: float = 0.6
    exchanges: int = 40
    new_tokens: int = 48
    answers: str = LIKE

    def __post_init__(self) -> None:
        for name in ("single_within", "merged_within"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"start.{name} must be >= 0, got {getattr(self, name)}")
        self.comparison()

    def comparison(self) -> Comparison:
        """Returns what the user's answers are compared with."""
        return Comparison(
            exchanges=self.exchanges, new_tokens=self.new_tokens, answers=self.answers
        )

    def find(self, context: StartContext) -> FoundStart:
        """Returns the nearest entry, the nearest sum of two, or none where both are too far."""
        manifest, how = context.offer.manifest, self.comparison()
        placed = place_user(context.exchanges, manifest, context.release, how, context.compute)
        return fetch_start(context, placed, choose_start(placed.point, manifest, self))


def choose_start(point: Floats, manifest: CatalogueManifest, how: NearestEntry) -> Start:
    """Returns the nearest entry, the nearest sum of two, or scratch; ties go to the first entry.

    Weights of a sum are brought to a total of at most 1.
    """
    places = manifest.compared(likes=how.comparison().likes)
    apart = cosine_distances(point, places)
    nearest = int(np.argmin(apart))
    if apart[nearest] <= how.single_within:
        return _start(manifest, (nearest,), (1.0,), float(apart[nearest]))
    best = Start(distance=float(apart[nearest]))
    for one, other in itertools.combinations(range(len(places)), 2):
        a, b, _ = nonnegative_pair(places[one], places[other], point)
        if not (a > 0 and b > 0):
            continue
        # a patch taken further than it was tuned is no patch of that style; the mixture stays
        longest = max(1.0, a + b)
        a, b = a / longest, b / longest
        distance = _distance_to_sum(point, a * places[one] + b * places[other], places)
        if distance < best.distance or not best.entries:
            best = _start(manifest, (one, other), (a, b), distance)
    return best if best.distance <= how.merged_within else Start(distance=best.distance)


def _distance_to_sum(point: Floats, added: Floats, places: Floats) -> float:
    # with its mirror image beside it, the mean that distances are relative to stays where it was
    mirrored = 2 * places.mean(axis=0) - added
    return float(cosine_distances(point, np.vstack([added, mirrored]))[0])


def _start(
    manifest: CatalogueManifest,
    entries: tuple[int, ...],
    weights: tuple[float, ...],
    distance: float,
) -> Start:
    wanted = tuple(manifest.entries[entry].digest for entry in entries)
    return Start(entries=entries, weights=weights, wanted=wanted, distance=distance)
