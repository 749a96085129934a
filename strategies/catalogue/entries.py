"""Entries of a catalogue: patches of the server, each with a name and where it comes from.

Entries come from corpora (`strategies.catalogue.text_sources`), from clusters of the fleet's shared
deltas (`strategies.catalogue.cluster_source`) or as PEFT adapters
(`strategies.catalogue.peft_source`). Patches and manifest are kept by content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fleettune.adapters.patch import Patch
from fleettune.adapters.patch_files import keep_patch
from fleettune.catalogue.manifest import CatalogueManifest, encode_manifest, manifest_digest
from fleettune.cohort.execute import Execute
from fleettune.data.tokens import open_encoder
from fleettune.jobs.jobs import GenerateJob, GenerateResult
from fleettune.releases.manifest import Manifest
from fleettune.whole_files import write_whole
from strategies.catalogue.shared_deltas import SharedDeltas


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One personalised patch.

    Attributes:
        name: Short name.
        origin: As `fleettune.catalogue.manifest.Listed`.
        patch: The patch.
    """

    name: str
    origin: str
    patch: Patch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """Entries with the manifest that explains them, in the same order."""

    manifest: CatalogueManifest
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryTools:
    """What the server makes entries with.

    Attributes:
        store: Folder of the catalogues' patches.
        seed: Key of corpora, questions and adapters.
        run: Runs jobs.
        shared: The deltas that devices shared.
    """

    store: Path
    seed: int
    run: Execute
    shared: SharedDeltas


def publish(catalogue: Catalogue, store: Path) -> str:
    """Writes all patches and the manifest into a store and returns the manifest's digest."""
    for entry in catalogue.entries:
        keep_patch(store, entry.patch)
    data = encode_manifest(catalogue.manifest)
    digest = manifest_digest(data)
    write_whole(store / f"{digest}.catalogue", data)
    return digest


def answer_questions(
    entries: Sequence[Entry],
    questions: Sequence[str],
    new_tokens: int,
    release: Manifest,
    execute: Execute,
) -> list[tuple[tuple[int, ...], ...]]:
    """Returns the tokens that every entry answers to all questions, decoded greedily."""
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    prompts = tuple(encoder.request(question) for question in questions)
    jobs = [
        GenerateJob(
            release=release.path,
            patch=entry.patch,
            prompts=prompts,
            new_tokens=new_tokens,
            stop=encoder.stop,
        )
        for entry in entries
    ]
    return [cast(GenerateResult, result).tokens for result in execute(jobs)]
