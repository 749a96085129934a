"""Catalogue start: how a device finds what its first tune starts from, and what finding it asks.

A rule sees the device's own exchanges and an offered catalogue. What it returns stays on the
device; the server learns which patches were wanted, by serving them, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from clients.start.nearest_entry import (
    Placed,
    Start,
    WarmStart,
    assemble,
    choose_start,
    download_work,
    place_user,
    selection_work,
)
from clients.start.optuna_search import SEARCHES, pick_by_search
from clients.start.rivals import (
    Picked,
    pick_by_halving,
    pick_exhaustively,
    pick_random,
    rival_work,
)
from clients.work.facts import Facts
from fleettune.adapters.patch import Patch, Placement
from fleettune.adapters.updates import merge_patches
from fleettune.catalogue.explanation import Cosine, Distance, Published, Relative
from fleettune.catalogue.offer import CatalogueOffer
from fleettune.cost.workload import Entry
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream

DISTANCES: Mapping[str, type[Distance]] = {
    "cosine": Cosine,
    "relative": Relative,
    "published": Published,
}
KEEPS = ("both", "heavier", "lighter")
PICKS = ("random", "exhaustive", "halving", *SEARCHES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a start is chosen from.

    Attributes:
        facts: The device.
        release: What it tunes.
        offer: The catalogue.
        exchanges: Its user's answered exchanges, in time order.
        placement: Where its adapters will be.
        compute: Its processor.
        holds: Digest of the model beside its release that it has already; empty without one.
    """

    facts: Facts
    release: Manifest
    offer: CatalogueOffer
    exchanges: tuple[Exchange, ...]
    placement: Placement
    compute: Compute
    holds: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a first tune starts from.

    Attributes:
        names: Names of the entries in it; none from scratch.
        patch: Their sum at the device's rank; None from scratch.
        entries: What finding it asked of the device, downloads included.
        holds: Digest of the model beside its release that it has now; empty without one.
    """

    names: tuple[str, ...]
    patch: Patch | None
    entries: list[Entry]
    holds: str = ""


NOTHING = Found(names=(), patch=None, entries=[])
"""From scratch, without having looked at anything."""


@runtime_checkable
class StartRule(Protocol):
    """How a device finds the start of its first tune."""

    def find(self, asked: Asked) -> Found:
        """Returns the start; not asked where no catalogue is offered."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """Every tune starts from an untrained patch."""

    def find(self, asked: Asked) -> Found:
        """Returns no entry."""
        return NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The entry that is explained in the words in which the user's exchanges are (XPerT).

    Attributes:
        distance: Between coordinates: ``cosine``, ``relative`` or ``published``
            (`fleettune.catalogue.explanation`).
        single_within: As `clients.start.nearest_entry.WarmStart`, as are all fields below.
        merged_within: As there.
        exchanges: As there.
        new_tokens: As there.
        answers: As there.
        keep: Of the sum of two entries ``both``, or the ``heavier`` or ``lighter`` part alone, to
            see what adding them is worth.

    Raises:
        ValueError: If a value breaks its rule.
    """

    distance: str = "cosine"
    single_within: float = 0.4
    merged_within: float = 0.6
    exchanges: int = 40
    new_tokens: int = 48
    answers: str = "own"
    keep: str = "both"

    def __post_init__(self) -> None:
        if self.keep not in KEEPS:
            raise ValueError(f"start.keep must be one of {KEEPS}, got {self.keep!r}")
        if self.distance not in DISTANCES:
            raise ValueError(
                f"start.distance must be one of {tuple(DISTANCES)}, got {self.distance!r}"
            )
        _ = self.how

    @property
    def how(self) -> WarmStart:
        """How the start is chosen."""
        return WarmStart(
            distance=DISTANCES[self.distance](),
            single_within=self.single_within,
            merged_within=self.merged_within,
            exchanges=self.exchanges,
            new_tokens=self.new_tokens,
            answers=self.answers,
        )

    def find(self, asked: Asked) -> Found:
        """Returns the nearest entry, the nearest sum of two, or none where both are too far."""
        manifest, release = asked.offer.manifest, asked.release
        placed = place_user(asked.exchanges, manifest, release, self.how, asked.compute)
        start = kept(choose_start(placed.point, manifest, self.how), self.keep)
        # one patch alone is taken as it is, as XPerT does
        whole = replace(start, weights=(1.0,)) if start.kind == "single" else start
        return brought(asked, placed, whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """An entry picked without any explanation.

    Attributes:
        pick: ``random``; ``exhaustive``: every entry is scored on the user's exchanges;
            ``halving``: successive halving over them; ``bayesian`` and ``hyperband``: searched by
            Optuna (`clients.start.optuna_search`).
        exchanges: Most exchanges that are scored, newest first.

    Raises:
        ValueError: If a value breaks its rule.
    """

    pick: str
    exchanges: int = 40

    def __post_init__(self) -> None:
        if self.pick not in PICKS:
            raise ValueError(f"start.pick must be one of {PICKS}, got {self.pick!r}")
        if self.exchanges < 1:
            raise ValueError(f"start.exchanges must be >= 1, got {self.exchanges}")

    def find(self, asked: Asked) -> Found:
        """Returns the picked entry."""
        listed, facts, release = asked.offer.manifest.entries, asked.facts, asked.release
        encoder = facts.encoder(release)
        examples = [encoder.example(one) for one in asked.exchanges[-self.exchanges :]]
        if self.pick == "random":
            rng = stream(facts.seed, Purpose.CATALOGUE, 4, facts.device)
            picked = pick_random(len(listed), rng)
            patches = asked.offer.patches((listed[picked.entry].digest,))
            work = download_work(facts, release, patches)
            return _rival(asked, listed[picked.entry].name, patches[0], work)
        patches = asked.offer.patches(tuple(entry.digest for entry in listed))
        picked = self._scored(asked, examples, patches)
        work = rival_work(facts, release, picked, patches, examples)
        return _rival(asked, listed[picked.entry].name, patches[picked.entry], work)

    def _scored(
        self, asked: Asked, examples: Sequence[Example], patches: Sequence[Patch]
    ) -> Picked:
        release, compute = asked.release.path, asked.compute
        if self.pick in SEARCHES:
            rng = stream(asked.facts.seed, Purpose.CATALOGUE, 5, asked.facts.device)
            seed = int(rng.integers(2**31))
            return pick_by_search(self.pick, examples, patches, release, compute, seed)
        pick = pick_exhaustively if self.pick == "exhaustive" else pick_by_halving
        return pick(examples, patches, release, compute)


def kept(start: Start, keep: str) -> Start:
    """Returns one part of a sum of two where that is asked for."""
    if keep == "both" or start.kind != "merged":
        return start
    heavier = int(start.weights[1] > start.weights[0])
    place = heavier if keep == "heavier" else 1 - heavier
    return replace(
        start,
        kind="single",
        entries=(start.entries[place],),
        weights=(start.weights[place],),
        wanted=(start.wanted[place],),
    )


def brought(asked: Asked, placed: Placed, start: Start) -> Found:
    """Returns a start with its patches, and what placing the user and bringing them asked."""
    manifest, release, facts = asked.offer.manifest, asked.release, asked.facts
    patches = asked.offer.patches(start.wanted)
    size_bytes, model = len(asked.offer.data), manifest.summariser.model
    work = selection_work(facts, release, manifest, placed, size_bytes, asked.holds)
    placement = asked.placement
    return Found(
        names=tuple(manifest.entries[entry].name for entry in start.entries),
        patch=assemble(start, patches, placement.rank, placement.alpha),
        entries=[*work, *download_work(facts, release, patches)],
        holds=asked.holds if model is None else model.digest,
    )


def _rival(asked: Asked, name: str, patch: Patch, work: list[Entry]) -> Found:
    placement = asked.placement
    ranks = set(patch.ranks.values())
    fits = ranks == {placement.rank} and patch.alpha == placement.alpha
    start = patch if fits else merge_patches([patch], [1.0], placement.rank, placement.alpha)
    return Found(names=(name,), patch=start, entries=work)
