"""Cataloguer: makes the catalogue that is offered with every release.

Entries are made (`strategies.catalogue.sources`), explained, and kept by content, so a catalogue is
made once. Where a new release comes, an entry whose held-out text the release with the old patch
predicts no worse than before is reused as it is; any other is made anew, or dropped where nothing
is there to make it of (the reuse-or-retune rule of canaries, on the server's own text).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fleettune.adapters.patch import Patch
from fleettune.catalogue.decomposition import WordlessError, describe, format_terms
from fleettune.catalogue.manifest import (
    SCHEMA,
    CatalogueOffer,
    decode_manifest,
    encode_manifest,
    manifest_digest,
)
from fleettune.cohort.execute import Execute, execute_here
from fleettune.records import to_record
from fleettune.releases.manifest import Manifest
from fleettune.whole_files import write_whole
from strategies.catalogue.cluster_source import ClusterCatalogue
from strategies.catalogue.entries import Catalogue, Entry, EntryTools, publish
from strategies.catalogue.explain import explain_entries
from strategies.catalogue.shared_deltas import SharedDeltas
from strategies.catalogue.sources import CatalogueSource, EntrySource, Uncatalogued
from strategies.catalogue.still_valid import EntryValidity, check_entries

log = logging.getLogger(__name__)

FOLDER = "catalogues"
"""Where patches and manifests lie in the release store."""
SHARED = "shared_deltas"
"""Where deltas lie that clusters are made of."""
LEAST_ENTRIES = 2
"""Entries below which there is no catalogue: the words of one would tell it from nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCatalogue:
    """A release's catalogue: what is in it, which entries were reused, what devices are sent."""

    catalogue: Catalogue
    reused: tuple[str, ...]
    offer: CatalogueOffer


@dataclass(slots=True, kw_only=True)
class Cataloguer:
    """Makes the catalogue of every release.

    Attributes:
        how: What is in it.
        store: The release store.
        seed: Key of corpora, questions, adapters and samples.
        run: Runs jobs.
        made: What was made so far, by release; None where it came to no catalogue.
        validity: Which entries of the release before are still valid, by release.
        shared: The deltas that clusters are made of.
        resumed: Digests of the manifests that an interrupted run had made, by release.
    """

    how: CatalogueSource = field(default_factory=Uncatalogued)
    store: Path = Path()
    seed: int = 0
    run: Execute = execute_here
    made: dict[int, ReleaseCatalogue | None] = field(
        default_factory=dict[int, ReleaseCatalogue | None]
    )
    validity: dict[int, EntryValidity] = field(default_factory=dict[int, EntryValidity])
    shared: SharedDeltas = field(init=False)
    resumed: dict[int, str] = field(default_factory=dict[int, str])

    def __post_init__(self) -> None:
        most = self.how.most if isinstance(self.how, ClusterCatalogue) else 0
        self.shared = SharedDeltas(store=self.store / SHARED, seed=self.seed, most=most)

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
                self._make(self.how, release, before)
        made = self.made.get(releases[-1].version)
        return None if made is None else made.offer

    def share(self, release: int) -> Callable[[int, Patch], None] | None:
        """Returns what takes a device's number and delta of a round; None where none is wanted.

        The round that brings enough of them is the last one that is asked for any.
        """
        how = self.how
        if not isinstance(how, ClusterCatalogue) or release in self.made:
            return None
        if self.shared.count(release) >= how.least:
            return None
        return partial(self.shared.add, release)

    def plain(self) -> dict[str, Any]:
        """Returns what a resumed run needs, as JSON can hold it; nothing without a catalogue."""
        if isinstance(self.how, Uncatalogued):
            return {}
        made = ((version, one) for version, one in self.made.items() if one is not None)
        offered = [(version, manifest_digest(one.offer.data)) for version, one in made]
        return {"offered": offered, "shared": self.shared.plain()}

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Takes over what `plain` wrote; catalogues are made or found again when asked for."""
        if plain:
            self.resumed = dict(plain["offered"])
            self.shared.restore(plain["shared"])

    def rows(self) -> list[dict[str, Any]]:
        """Returns every entry of every release with its explanation and coordinates."""
        made = ((version, one) for version, one in self.made.items() if one is not None)
        return [row for version, one in made for row in _rows(version, one)]

    @property
    def _tools(self) -> EntryTools:
        return EntryTools(
            store=self.store / FOLDER,
            seed=self.seed,
            run=self.run,
            shared=self.shared,
        )

    def _make(self, how: EntrySource, release: Manifest, before: Manifest | None) -> None:
        """Makes a release's catalogue, unless it cannot be made yet."""
        tools, version = self._tools, release.version
        tools.store.mkdir(parents=True, exist_ok=True)
        if before is not None and version not in self.validity:
            self.validity[version] = self._check_entries(how, release, before)
        validity = self.validity.get(version)
        entries = how.make_entries(release, validity, tools)
        if entries is None:
            return
        self.made[version] = None
        if len(entries) < LEAST_ENTRIES:
            log.warning(
                "release %d has no catalogue: there are %d entries, and it takes %d",
                *(version, len(entries), LEAST_ENTRIES),
            )
            return
        try:
            data = self._explain(how, entries, release)
        except WordlessError as error:
            log.warning("release %d has no catalogue: no word explains it: %s", version, error)
            return
        self._check(version, data)
        valid = () if validity is None else validity.valid
        digests = {entry.patch.digest() for entry in valid}
        self.made[version] = ReleaseCatalogue(
            catalogue=Catalogue(manifest=decode_manifest(data), entries=entries),
            reused=tuple(e.name for e in entries if e.patch.digest() in digests),
            offer=CatalogueOffer(data=data, store=str(tools.store)),
        )

    def _check(self, version: int, data: bytes) -> None:
        digest = manifest_digest(data)
        if self.resumed.get(version, digest) != digest:
            raise ValueError(
                f"the catalogue of release {version} must have digest {self.resumed[version]}, as "
                f"when the run was interrupted, got {digest}; are its files still what they were?"
            )

    def _explain(self, how: EntrySource, entries: tuple[Entry, ...], release: Manifest) -> bytes:
        """Returns the manifest of some entries, made or found by what it is made of."""
        folder = self.store / FOLDER
        questions = how.draw_questions(self._tools)
        listed = [(entry.name, entry.origin, entry.patch.digest()) for entry in entries]
        made_of = [SCHEMA, release.digest, release.version, listed, to_record(how.explain)]
        key = hashlib.sha256(json.dumps([*made_of, questions, self.seed]).encode()).hexdigest()
        file = folder / f"{key}.explained"
        if (found := _find_explained(folder, file)) is not None:
            return found
        catalogue = explain_entries(entries, questions, how.explain, release, self.run)
        # written behind its manifest, so that a key always leads to one
        write_whole(file, publish(catalogue, folder).encode())
        return encode_manifest(catalogue.manifest)

    def _check_entries(
        self, how: EntrySource, release: Manifest, before: Manifest
    ) -> EntryValidity:
        """Returns the entries of the release before, and those still valid for a new one."""
        made = self.made.get(before.version)
        if made is None:
            return EntryValidity()
        old = made.catalogue.entries
        text = how.hold_out(old, before, self._tools)
        found = check_entries(old, text, (before, release), how.worse, self.run)
        if found.lost:
            named = ", ".join(found.lost)
            log.info("release %d: these entries do not hold: %s", release.version, named)
        return found


def _find_explained(folder: Path, file: Path) -> bytes | None:
    """Returns the manifest that a key leads to; None where one of the two is absent or damaged."""
    digest = file.read_text(errors="replace") if file.is_file() else ""
    manifest = folder / f"{digest}.catalogue"
    data = manifest.read_bytes() if manifest.is_file() else b""
    return data if manifest_digest(data) == digest else None


def _rows(version: int, made: ReleaseCatalogue) -> list[dict[str, Any]]:
    manifest = made.catalogue.manifest
    words, opposites = manifest.basis.words, manifest.basis.opposites
    found: list[dict[str, Any]] = []
    for entry, place in zip(manifest.entries, manifest.coordinates, strict=True):
        terms = describe(words, opposites, place, manifest.middle)
        found.append(
            {
                "release": version,
                "entry": entry.name,
                "origin": entry.origin,
                "reused": entry.name in made.reused,
                "manifest_bytes": len(made.offer.data),
                "summariser": type(manifest.summariser).__name__,
                "strongest": terms[0].word if terms else "",
                "reads": format_terms(terms),
                "words": list(words),
                "coordinates": [round(float(value), 6) for value in place],
            }
        )
    return found


def write_catalogue(cataloguer: Cataloguer, file: Path) -> None:
    """Writes every entry with its explanation, where there is a catalogue."""
    rows = cataloguer.rows()
    if rows:
        file.write_text(json.dumps(rows))
