"""Rivals of an explained start: a random entry, every entry tried, and successive halving.

The last two score the user's own exchanges with downloaded patches, so their cost grows with the
catalogue. HyperBand is successive halving over brackets (Li et al. 2018); one bracket with the
exchanges as its resource is `pick_by_halving`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clients.start.placing import download_work
from clients.start.rules import FoundStart, StartContext
from clients.work.facts import Facts
from clients.work.stage_work import ranks_of
from fleettune.adapters.patch import Patch
from fleettune.adapters.updates import merge_patches
from fleettune.cost.ledger import Stage
from fleettune.cost.work import Work, forward_work
from fleettune.cost.workload import Entry, Phase, computing
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, ScoreJob
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream

PICKS = ("random", "exhaustive", "halving")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Starts from an entry that is picked without any explanation.

    Attributes:
        pick: ``random``; ``exhaustive``: every entry is scored on the user's exchanges;
            ``halving``: successive halving over them.
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

    def find(self, context: StartContext) -> FoundStart:
        """Returns the picked entry."""
        listed, facts, release = context.offer.manifest.entries, context.facts, context.release
        if self.pick == "random":
            rng = stream(facts.seed, Purpose.CATALOGUE, 4, facts.device)
            entry = listed[int(rng.integers(len(listed)))]
            (patch,) = context.offer.patches((entry.digest,))
            return _found(context, entry.name, patch, download_work(facts, release, [patch]))
        patches = context.offer.patches(tuple(entry.digest for entry in listed))
        encoder = facts.encoder(release)
        examples = [encoder.example(one) for one in context.exchanges[-self.exchanges :]]
        pick = pick_exhaustively if self.pick == "exhaustive" else pick_by_halving
        picked = pick(examples, patches, release.path, context.compute)
        work = scoring_work(facts, release, picked, patches, examples)
        return _found(context, listed[picked.entry].name, patches[picked.entry], work)


@dataclass(frozen=True, slots=True, kw_only=True)
class PickedEntry:
    """An entry that a rival picked, and what it scored to find it.

    Attributes:
        entry: Number of the entry.
        scored: Per entry, how many exchanges were scored with it.
    """

    entry: int
    scored: tuple[int, ...]


def pick_exhaustively(
    examples: Sequence[Example], patches: Sequence[Patch], release: str, compute: Compute
) -> PickedEntry:
    """Returns the entry under which the user's exchanges are likeliest, all of them tried."""
    losses = [_loss(examples, patch, release, compute) for patch in patches]
    return PickedEntry(entry=int(np.argmin(losses)), scored=(len(examples),) * len(patches))


def pick_by_halving(
    examples: Sequence[Example],
    patches: Sequence[Patch],
    release: str,
    compute: Compute,
    keep: int = 3,
) -> PickedEntry:
    """Returns the survivor of successive halving: one in `keep` stays, with `keep` times the text.

    Raises:
        ValueError: If `keep` is below 2 or there is no exchange.
    """
    if keep < 2 or not examples:
        raise ValueError(f"halving needs keep >= 2 and an exchange, got {keep}, {len(examples)}")
    alive = list(range(len(patches)))
    rungs = max(1, int(np.ceil(np.log(max(len(patches), 2)) / np.log(keep))))
    scored = [0] * len(patches)
    for rung in range(rungs):
        count = max(1, round(len(examples) / keep ** (rungs - 1 - rung)))
        losses = {
            entry: _loss(examples[:count], patches[entry], release, compute) for entry in alive
        }
        for entry in alive:
            scored[entry] = count
        alive = sorted(alive, key=losses.__getitem__)[: max(1, -(-len(alive) // keep))]
    return PickedEntry(entry=alive[0], scored=tuple(scored))


def scoring_work(
    facts: Facts,
    release: Manifest,
    picked: PickedEntry,
    patches: Sequence[Patch],
    examples: Sequence[Example],
) -> list[Entry]:
    """Returns what a rival's choice asks: a download and forward passes per scored entry.

    An exchange counts once per entry, also where halving scores it on several rungs.
    """
    shapes, weight = facts.priced.shapes(release.shapes), facts.priced.bytes_per_weight
    tried = [
        (patch, count) for patch, count in zip(patches, picked.scored, strict=True) if count > 0
    ]
    work = Work()
    for patch, count in tried:
        lengths = facts.priced.lengths([len(example.tokens) for example in examples[:count]])
        head = facts.priced.tokens(sum(example.supervised for example in examples[:count]))
        ranks = facts.priced.ranks(release.shapes, ranks_of(patch))
        work += forward_work(shapes, lengths, min(head, sum(lengths)), ranks, weight)
    return [
        *download_work(facts, release, [patch for patch, _ in tried]),
        (Stage.CHECK, Phase.PREFILL, computing(work)),
    ]


def _loss(examples: Sequence[Example], patch: Patch, release: str, compute: Compute) -> float:
    job = ScoreJob(release=release, patch=patch, examples=tuple(examples))
    return sum(compute.score(job).nll)


def _found(context: StartContext, name: str, patch: Patch, work: Sequence[Entry]) -> FoundStart:
    """Returns a patch at the device's rank, with what finding it asked."""
    placement = context.placement
    fits = set(patch.ranks.values()) == {placement.rank} and patch.alpha == placement.alpha
    start = patch if fits else merge_patches([patch], [1.0], placement.rank, placement.alpha)
    return FoundStart(names=(name,), patch=start, entries=tuple(work))
