"""Cataloguing: the catalogue that is offered with every release, and how it outlives a release.

Entries are tuned on text of the server, explained, and kept by content, so a catalogue is
made once. Where a new release comes, an entry whose held-out text the release with the old patch
predicts no worse than before is reused as it is; any other is tuned anew (the reuse-or-retune rule
of canaries, on the server's own text).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from fleettune.adapters import Patch
from fleettune.catalogue_manifest import SCHEMA, decode_manifest, encode_manifest
from fleettune.compute import ScoreJob, ScoreResult
from fleettune.exchanges import Exchange
from fleettune.explanation import explained as told
from fleettune.explanation import in_words
from fleettune.offers import CatalogueOffer
from fleettune.releases import Manifest
from fleettune.tokens import Example, open_encoder
from fleettune.typed import to_record
from strategies.catalogue import Catalogue, Entry, Execute, Explaining, explained, publish
from strategies.catalogue_sources import (
    HELD_OUT,
    Cataloguing,
    Tuned,
    Uncatalogued,
    placement,
    read_as,
)
from strategies.catalogue_tuning import Recipe, corpus_entries
from strategies.ranking import here

FOLDER = "catalogues"
"""Where patches and manifests lie in the release store."""


@dataclass(slots=True, kw_only=True)
class Cataloguer:
    """Makes the catalogue of every release.

    Attributes:
        how: What is in it.
        store: The release store.
        seed: Key of corpora, questions and adapters.
        run: Runs jobs.
        made: What was made so far: the catalogue, and which entries were reused, by release.
    """

    how: Cataloguing = field(default_factory=Uncatalogued)
    store: Path = Path()
    seed: int = 0
    run: Execute = here
    made: dict[int, tuple[Catalogue, tuple[str, ...], CatalogueOffer]] = field(
        default_factory=dict[int, tuple[Catalogue, tuple[str, ...], CatalogueOffer]]
    )

    def offer(self, releases: Sequence[Manifest]) -> CatalogueOffer | None:
        """Returns the catalogue of the last of some releases; None without one.

        Args:
            releases: All that were published up to it, oldest first.
        """
        if isinstance(self.how, Uncatalogued):
            return None
        for place, release in enumerate(releases):
            if release.version not in self.made:
                before = releases[place - 1] if place else None
                self.made[release.version] = self._make(self.how, release, before)
        return self.made[releases[-1].version][2]

    def rows(self) -> list[dict[str, Any]]:
        """Returns every entry of every release with its explanation and coordinates."""
        found: list[dict[str, Any]] = []
        for version, (catalogue, reused, offer) in self.made.items():
            manifest = catalogue.manifest
            words, opposites = manifest.basis.words, manifest.basis.opposites
            for entry, place in zip(manifest.entries, manifest.coordinates, strict=True):
                terms = told(words, opposites, place, manifest.middle)
                found.append(
                    {
                        "release": version,
                        "entry": entry.name,
                        "origin": entry.origin,
                        "reused": entry.name in reused,
                        "manifest_bytes": len(offer.data),
                        "summariser": type(manifest.summariser).__name__,
                        "strongest": terms[0].word if terms else "",
                        "reads": in_words(terms),
                        "words": list(words),
                        "coordinates": [round(float(value), 6) for value in place],
                    }
                )
        return found

    def _make(
        self, how: Tuned, release: Manifest, before: Manifest | None
    ) -> tuple[Catalogue, tuple[str, ...], CatalogueOffer]:
        folder = self.store / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        corpora = how.corpora(self.seed)
        kept = {} if before is None else self._reused(how, corpora, release, before)
        due = {name: c[:-HELD_OUT] for name, c in corpora.items() if name not in kept}
        recipe = Recipe(
            placement=placement(how, release.shapes),
            steps=how.steps,
            batch=how.batch,
            learning_rate=how.learning_rate,
            clip=1.0,
            seed=self.seed,
        )
        tuned = corpus_entries(due, recipe, release, self.run, folder) if due else ()
        entries = {entry.name: entry for entry in tuned} | kept
        ordered = tuple(entries[name] for name in corpora)
        data = self._explained(how, ordered, release)
        catalogue = Catalogue(manifest=decode_manifest(data), entries=ordered)
        return catalogue, tuple(kept), CatalogueOffer(data=data, store=str(folder))

    def _explained(self, how: Tuned, entries: tuple[Entry, ...], release: Manifest) -> bytes:
        """Returns the manifest of some entries, made or found by what it is made of."""
        folder = self.store / FOLDER
        digests = [entry.patch.digest() for entry in entries]
        summariser = read_as(how)
        made_of = [SCHEMA, release.digest, release.version, digests, to_record(how), self.seed]
        if summariser.model is not None:
            made_of.append(summariser.model.digest)
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        file = folder / f"{key}.explained"
        if file.is_file():
            return (folder / f"{file.read_text()}.catalogue").read_bytes()
        explaining = Explaining(
            questions=how.asked(self.seed),
            summariser=summariser,
            new_tokens=how.new_tokens,
            residual=how.residual,
            beside=how.beside,
            shrink=how.shrink,
        )
        catalogue = explained(entries, explaining, release, self.run)
        # written behind its manifest, so that a key always leads to one
        file.write_text(publish(catalogue, folder))
        return encode_manifest(catalogue.manifest)

    def _reused(
        self,
        how: Tuned,
        corpora: Mapping[str, tuple[Exchange, ...]],
        release: Manifest,
        before: Manifest,
    ) -> dict[str, Entry]:
        """Returns the entries of the release before that hold for a new one."""
        old = self.made[before.version][0].entries
        jobs = [
            _scoring(at, entry.patch, corpora[entry.name][-HELD_OUT:])
            for at in (before, release)
            for entry in old
        ]
        nats = [_nats(job, result) for job, result in zip(jobs, self.run(jobs), strict=True)]
        pairs = zip(old, nats[: len(old)], nats[len(old) :], strict=True)
        return {
            entry.name: replace(entry, patch=replace(entry.patch, release=release.version))
            for entry, earlier, now in pairs
            if now - earlier <= how.worse
        }


def _scoring(release: Manifest, patch: Patch, text: Sequence[Exchange]) -> ScoreJob:
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    examples: tuple[Example, ...] = tuple(map(encoder.example, text))
    return ScoreJob(release=release.path, patch=patch, examples=examples)


def _nats(job: ScoreJob, result: object) -> float:
    scored = cast(ScoreResult, result)
    return sum(scored.nll) / sum(example.supervised for example in job.examples)


def write_catalogue(cataloguer: Cataloguer, file: Path) -> None:
    """Writes every entry with its explanation, where there is a catalogue."""
    if cataloguer.made:
        file.write_text(json.dumps(cataloguer.rows()))
