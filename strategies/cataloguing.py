"""Cataloguing: the catalogue that is offered with every release, and how it outlives a release.

Entries are tuned on style corpora of the server, explained, and kept by content, so a catalogue is
made once. Where a new release comes, an entry whose held-out text the release with the old patch
predicts no worse than before is reused as it is; any other is tuned anew (the reuse-or-retune rule
of canaries, on the server's own text).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from fleettune.adapters import Patch, Placement
from fleettune.catalogue_manifest import SCHEMA, decode_manifest, encode_manifest
from fleettune.compute import ScoreJob, ScoreResult
from fleettune.exchanges import Exchange
from fleettune.explanation import explained as told
from fleettune.explanation import in_words
from fleettune.offers import CatalogueOffer
from fleettune.releases import Manifest
from fleettune.sites import MODULES, Site
from fleettune.styles import Style, plain_questions, style_corpus, style_grid
from fleettune.summaries import AnswerEmbedding, StyleQuestion, Stylometry, Summariser
from fleettune.tokens import Example, open_encoder
from fleettune.typed import to_record
from fleettune.work import Shapes
from strategies.catalogue import Catalogue, Entry, Execute, Explaining, explained, publish
from strategies.catalogue_tuning import Recipe, corpus_entries
from strategies.ranking import here

SUMMARISERS = {
    "embedding": AnswerEmbedding,
    "stylometry": Stylometry,
    "question": StyleQuestion,
}
FOLDER = "catalogues"
"""Where patches and manifests lie in the release store."""
_HELD_OUT = 16
"""Exchanges of an entry's corpus by which a new release is judged; never trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncatalogued:
    """No catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleCatalogue:
    """A catalogue of patches tuned on text in one style each.

    Attributes:
        expertise: Levels of expertise; of the other axes all levels are taken.
        entries: How many of those styles have an entry, spread evenly; None: all.
        corpus: Exchanges that an entry is tuned on.
        steps: Optimizer steps of an entry.
        batch: Exchanges per step.
        learning_rate: AdamW's learning rate.
        layers: Top layers with adapters.
        rank: Their rank.
        alpha: Their alpha.
        questions: Answered by the base and by every entry.
        summariser: ``embedding``, ``stylometry`` or ``question`` (`fleettune.summaries`).
        residual: As `strategies.catalogue.Explaining`.
        beside: As there.
        shrink: As there.
        worse: Nats per token by which a release may make an entry worse and it is still reused.

    Raises:
        ValueError: If a value breaks its rule.
    """

    expertise: tuple[int, ...] = (0, 3)
    entries: int | None = None
    corpus: int = 120
    steps: int = 40
    batch: int = 8
    learning_rate: float = 5e-3
    layers: int = 4
    rank: int = 8
    alpha: float = 16.0
    questions: int = 100
    summariser: str = "stylometry"
    residual: float = 0.02
    beside: int = 8
    shrink: float | None = 0.3
    worse: float = 0.02

    def __post_init__(self) -> None:
        if self.summariser not in SUMMARISERS:
            raise ValueError(
                f"catalogue.summariser must be one of {tuple(SUMMARISERS)}, got {self.summariser!r}"
            )
        for name in ("corpus", "steps", "batch", "layers", "rank", "questions"):
            if getattr(self, name) < 1:
                raise ValueError(f"catalogue.{name} must be >= 1, got {getattr(self, name)}")
        if self.worse < 0:
            raise ValueError(f"catalogue.worse must be >= 0 nats per token, got {self.worse}")
        most = len(style_grid(self.expertise))
        if self.entries is not None and not 2 <= self.entries <= most:
            raise ValueError(f"catalogue.entries must be from 2 to {most}, got {self.entries}")

    @property
    def styles(self) -> tuple[Style, ...]:
        """The styles with an entry."""
        every = style_grid(self.expertise)
        if self.entries is None:
            return every
        return tuple(every[place * len(every) // self.entries] for place in range(self.entries))

    def placement(self, shapes: Shapes) -> Placement:
        """Returns adapters on every site of the top layers."""
        first = max(0, shapes.layers - self.layers)
        sites = tuple(Site(layer, m) for layer in range(first, shapes.layers) for m in MODULES)
        return Placement(sites=sites, rank=self.rank, alpha=self.alpha)

    def read_as(self) -> Summariser:
        """Returns what turns pairs of answers into vectors."""
        return cast(Summariser, SUMMARISERS[self.summariser]())


Cataloguing = Uncatalogued | StyleCatalogue
"""What a plan may name."""


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
        self, how: StyleCatalogue, release: Manifest, before: Manifest | None
    ) -> tuple[Catalogue, tuple[str, ...], CatalogueOffer]:
        folder = self.store / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        corpora = {
            style.name: style_corpus(style, how.corpus + _HELD_OUT, self.seed)
            for style in how.styles
        }
        kept = {} if before is None else self._reused(how, corpora, release, before)
        due = {name: c[: how.corpus] for name, c in corpora.items() if name not in kept}
        recipe = Recipe(
            placement=how.placement(release.shapes),
            steps=how.steps,
            batch=how.batch,
            learning_rate=how.learning_rate,
            clip=1.0,
            seed=self.seed,
        )
        tuned = corpus_entries(due, recipe, release, self.run, folder) if due else ()
        entries = {entry.name: entry for entry in tuned} | kept
        ordered = tuple(entries[style.name] for style in how.styles)
        data = self._explained(how, ordered, release)
        catalogue = Catalogue(manifest=decode_manifest(data), entries=ordered)
        return catalogue, tuple(kept), CatalogueOffer(data=data, store=str(folder))

    def _explained(
        self, how: StyleCatalogue, entries: tuple[Entry, ...], release: Manifest
    ) -> bytes:
        """Returns the manifest of some entries, made or found by what it is made of."""
        folder = self.store / FOLDER
        digests = [entry.patch.digest() for entry in entries]
        made_of = [SCHEMA, release.digest, release.version, digests, to_record(how), self.seed]
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        file = folder / f"{key}.explained"
        if file.is_file():
            return (folder / f"{file.read_text()}.catalogue").read_bytes()
        explaining = Explaining(
            questions=plain_questions(how.questions, self.seed + 1),
            summariser=how.read_as(),
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
        how: StyleCatalogue,
        corpora: dict[str, tuple[Exchange, ...]],
        release: Manifest,
        before: Manifest,
    ) -> dict[str, Entry]:
        """Returns the entries of the release before that hold for a new one."""
        old = self.made[before.version][0].entries
        jobs = [
            _scoring(at, entry.patch, corpora[entry.name][how.corpus :])
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
