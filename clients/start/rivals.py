"""Rivals of the explained start: a random entry, every entry tried, and successive halving.

All of them score the user's own exchanges with downloaded patches, so their cost grows with the
catalogue. HyperBand is successive halving over brackets (Li et al. 2018); one bracket with the
exchanges as its resource is `halving`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clients.start.nearest_entry import download_work
from clients.work.facts import Facts
from clients.work.stage_work import ranks_of
from fleettune.adapters.patch import Patch
from fleettune.cost.ledger import Stage
from fleettune.cost.work import Work, forward_work
from fleettune.cost.workload import Entry, Phase, computing
from fleettune.data.tokens import Example
from fleettune.jobs.jobs import Compute, ScoreJob
from fleettune.releases.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """An entry that a rival picked, and what it scored to find it.

    Attributes:
        entry: Number of the entry.
        scored: Per entry, how many exchanges were scored with it; 0 where it was not downloaded.
    """

    entry: int
    scored: tuple[int, ...]


def pick_random(entries: int, rng: np.random.Generator) -> Picked:
    """Returns an entry drawn evenly; nothing is scored."""
    return Picked(entry=int(rng.integers(entries)), scored=(0,) * entries)


def pick_exhaustively(
    examples: Sequence[Example], patches: Sequence[Patch], release: str, compute: Compute
) -> Picked:
    """Returns the entry under which the user's exchanges are likeliest, all of them tried."""
    losses = [_loss(examples, patch, release, compute) for patch in patches]
    return Picked(entry=int(np.argmin(losses)), scored=(len(examples),) * len(patches))


def pick_by_halving(
    examples: Sequence[Example],
    patches: Sequence[Patch],
    release: str,
    compute: Compute,
    keep: int = 3,
) -> Picked:
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
    return Picked(entry=alive[0], scored=tuple(scored))


def rival_work(
    facts: Facts,
    release: Manifest,
    picked: Picked,
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
    downloaded = [patch for patch, _ in tried] or [patches[picked.entry]]
    return [
        *download_work(facts, release, downloaded),
        (Stage.CHECK, Phase.PREFILL, computing(work)),
    ]


def _loss(examples: Sequence[Example], patch: Patch, release: str, compute: Compute) -> float:
    job = ScoreJob(release=release, patch=patch, examples=tuple(examples))
    return sum(compute.score(job).nll)
