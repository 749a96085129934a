"""Tuning of a catalogue's entries on corpora of the server, by the devices' own cohort engine.

A tune's inputs are its key: their digest, with the release by its weights, leads to the patch in
the store, so that a catalogue is tuned once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.adapters.patch_files import fetch_patch, keep_patch
from fleettune.catalogue.manifest import CORPUS
from fleettune.cohort.execute import Execute
from fleettune.data.exchanges import Exchange
from fleettune.data.tokens import open_encoder
from fleettune.jobs.jobs import TuneJob, TuneResult, job_digest
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from strategies.catalogue.entries import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the server tunes an entry: AdamW without weight decay, constant rate.

    Attributes:
        placement: Where the adapters are.
        steps: Optimizer steps.
        batch: Exchanges per step.
        learning_rate: AdamW's learning rate.
        clip: Largest norm of the whole gradient.
        seed: Key of adapters and order.
    """

    placement: Placement
    steps: int
    batch: int
    learning_rate: float
    clip: float
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"catalogue.{name} must be > 0, got {getattr(self, name)}")


def corpus_entries(
    corpora: Mapping[str, Sequence[Exchange]],
    recipe: Recipe,
    release: Manifest,
    execute: Execute,
    store: Path,
) -> tuple[Entry, ...]:
    """Returns one entry per corpus, tuned in cohorts or found in the store.

    Raises:
        ValueError: If a corpus holds less than one batch.
    """
    jobs = {
        name: _job(number, name, corpus, recipe, release)
        for number, (name, corpus) in enumerate(corpora.items())
    }
    known = {name: _known(store, job, release) for name, job in jobs.items()}
    missing = [name for name, patch in known.items() if patch is None]
    results = execute([jobs[name] for name in missing])
    for name, result in zip(missing, results, strict=True):
        patch = cast(TuneResult, result).patch
        known[name] = patch
        # written behind its patch, so that a key always leads to one
        key = _key_file(store, jobs[name], release)
        digest = keep_patch(store, patch)
        key.write_text(digest)
    found = {name: patch for name, patch in known.items() if patch is not None}
    return tuple(Entry(name=name, origin=CORPUS, patch=found[name]) for name in jobs)


def _job(
    number: int, name: str, corpus: Sequence[Exchange], recipe: Recipe, release: Manifest
) -> TuneJob:
    if len(corpus) < recipe.batch:
        raise ValueError(
            f"the corpus {name!r} must hold at least a batch of {recipe.batch} exchanges, "
            f"got {len(corpus)}"
        )
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    examples = [encoder.example(exchange) for exchange in corpus]
    rng = stream(recipe.seed, Purpose.CATALOGUE, 0)
    start = new_patch(recipe.placement, release.shapes, release.version, rng)
    drawn = stream(recipe.seed, Purpose.CATALOGUE, 1, number)
    per_epoch = len(examples) // recipe.batch
    orders: list[int] = []
    while len(orders) < recipe.steps * recipe.batch:
        orders += drawn.permutation(len(examples)).tolist()[: per_epoch * recipe.batch]
    batches = tuple(
        tuple(examples[place] for place in orders[step * recipe.batch : (step + 1) * recipe.batch])
        for step in range(recipe.steps)
    )
    return TuneJob(
        release=release.path,
        start=start,
        batches=batches,
        learning_rate=recipe.learning_rate,
        clip=recipe.clip,
    )


def _known(store: Path, job: TuneJob, release: Manifest) -> Patch | None:
    key = _key_file(store, job, release)
    return fetch_patch(store, key.read_text()) if key.is_file() else None


def _key_file(store: Path, job: TuneJob, release: Manifest) -> Path:
    """Returns the file that leads from a tune's inputs, the release by its digest, to its patch."""
    return store / f"{job_digest(replace(job, release=release.digest))}.tuned"
