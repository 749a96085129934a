"""Catalogues of text: entries tuned on corpora of the server, each on one style or one file.

The server tunes with the devices' own cohort engine: AdamW without weight decay, constant rate. A
tune's inputs are its key: their digest, with the release by its weights, leads to the patch in the
store, so that a catalogue is tuned once. What is held out of an entry's text judges it when a new
release comes; an entry that fails is tuned anew on the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, cast

from fleettune.adapters.patch import Patch, Placement, new_patch
from fleettune.adapters.patch_files import fetch_patch, holds_patch, keep_patch
from fleettune.catalogue.manifest import CORPUS
from fleettune.data.exchanges import Exchange
from fleettune.data.style_corpora import Corpora, draw_exchanges
from fleettune.data.styles import Style, draw_plain_questions, draw_style_corpus, style_grid
from fleettune.data.tokens import Example, open_encoder
from fleettune.jobs.jobs import TuneJob, TuneResult, job_digest
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site
from fleettune.whole_files import write_whole
from strategies.catalogue.entries import Entry, EntryTools
from strategies.catalogue.explain import Explain, check_counts, check_worse
from strategies.catalogue.still_valid import EntryValidity

HELD_OUT = 16
"""Exchanges of an entry's corpus by which a new release is judged; never trained on."""
CLIP = 1.0
"""Largest norm of the whole gradient of a tune."""


def check_layers(how: TextCatalogue, shapes: Shapes) -> None:
    """Raises ValueError if a model has fewer layers than are to be adapted."""
    if how.layers > shapes.layers:
        raise ValueError(
            f"catalogue.layers must be at most the model's {shapes.layers}, got {how.layers}"
        )


def make_text_entries(
    how: TextCatalogue, release: Manifest, before: EntryValidity | None, tools: EntryTools
) -> tuple[Entry, ...]:
    """Returns an entry per corpus: still valid, or tuned."""
    corpora = how.corpora(tools.seed)
    valid = {} if before is None else {entry.name: entry for entry in before.valid}
    due = {name: c[:-HELD_OUT] for name, c in corpora.items() if name not in valid}
    tuned = tune_on_corpora(due, how, release, tools) if due else ()
    entries = {entry.name: entry for entry in tuned} | valid
    return tuple(entries[name] for name in corpora)


def hold_out_text(
    how: TextCatalogue, entries: Sequence[Entry], release: Manifest, tools: EntryTools
) -> Mapping[str, tuple[Example, ...]]:
    """Returns what is held out of every entry's text."""
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    corpora = how.corpora(tools.seed)
    return {name: tuple(map(encoder.example, text[-HELD_OUT:])) for name, text in corpora.items()}


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
        layers: Top layers with adapters on every site.
        rank: Their rank.
        alpha: Their alpha.
        explain: How entries are explained.
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
    explain: Explain = field(default_factory=Explain)
    worse: float = 0.02

    # both catalogues of text do these alike
    check = check_layers
    make_entries = make_text_entries
    hold_out = hold_out_text

    def __post_init__(self) -> None:
        _check(self)
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

    def corpora(self, seed: int) -> Mapping[str, tuple[Exchange, ...]]:
        """Returns the text of every entry, what is held out behind the rest."""
        count = self.corpus + HELD_OUT
        return {style.name: draw_style_corpus(style, count, seed) for style in self.styles}

    def draw_questions(self, tools: EntryTools) -> tuple[str, ...]:
        """Returns questions of personas outside the fleet."""
        return draw_plain_questions(self.explain.questions, tools.seed + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporaCatalogue:
    """A catalogue of patches tuned on samples of corpora, one entry each.

    Attributes:
        text: The corpora (`fleettune.data.style_corpora`); entries and questions are of the
            server's part.
        corpus: As `StyleCatalogue`, as are all fields below.
        steps: As there.
        batch: As there.
        learning_rate: As there.
        layers: As there.
        rank: As there.
        alpha: As there.
        explain: As there; questions are of all corpora alike.
        worse: As there.

    Raises:
        ValueError: If a value breaks its rule.
    """

    text: Corpora
    corpus: int = 120
    steps: int = 30
    batch: int = 4
    learning_rate: float = 1e-3
    layers: int = 8
    rank: int = 8
    alpha: float = 16.0
    explain: Explain = field(default_factory=Explain)
    worse: float = 0.02

    # both catalogues of text do these alike
    check = check_layers
    make_entries = make_text_entries
    hold_out = hold_out_text

    def __post_init__(self) -> None:
        _check(self)

    def corpora(self, seed: int) -> Mapping[str, tuple[Exchange, ...]]:
        """Returns the text of every entry, what is held out behind the rest."""
        return self._drawn(self.corpus + HELD_OUT, seed, 6)

    def draw_questions(self, tools: EntryTools) -> tuple[str, ...]:
        """Returns questions of all corpora alike."""
        each = -(-self.explain.questions // len(self.text.files))
        drawn = self._drawn(each, tools.seed, 7)
        return tuple(exchange.question for part in drawn.values() for exchange in part)

    def _drawn(self, count: int, seed: int, key: int) -> dict[str, tuple[Exchange, ...]]:
        names = [corpus.name for corpus in self.text.files]
        rngs = [stream(seed, Purpose.CATALOGUE, key, number) for number in range(len(names))]
        return {
            name: draw_exchanges(self.text, name, count, rng)
            for name, rng in zip(names, rngs, strict=True)
        }


TextCatalogue: TypeAlias = StyleCatalogue | CorporaCatalogue
"""Catalogues whose entries are tuned on text."""


def tune_on_corpora(
    corpora: Mapping[str, Sequence[Exchange]],
    how: TextCatalogue,
    release: Manifest,
    tools: EntryTools,
) -> tuple[Entry, ...]:
    """Returns one entry per corpus, tuned in cohorts or found in the store.

    Raises:
        ValueError: If a corpus holds less than one batch.
    """
    jobs = {
        name: _job(number, name, corpus, how, release, tools.seed)
        for number, (name, corpus) in enumerate(corpora.items())
    }
    known = {name: _find_tuned(tools.store, job, release) for name, job in jobs.items()}
    missing = [name for name, patch in known.items() if patch is None]
    results = tools.run([jobs[name] for name in missing])
    for name, result in zip(missing, results, strict=True):
        patch = cast(TuneResult, result).patch
        known[name] = patch
        # written behind its patch, so that a key always leads to one
        key = _key_file(tools.store, jobs[name], release)
        digest = keep_patch(tools.store, patch)
        write_whole(key, digest.encode())
    found = {name: patch for name, patch in known.items() if patch is not None}
    return tuple(Entry(name=name, origin=CORPUS, patch=found[name]) for name in jobs)


def _job(
    number: int,
    name: str,
    corpus: Sequence[Exchange],
    how: TextCatalogue,
    release: Manifest,
    seed: int,
) -> TuneJob:
    if len(corpus) < how.batch:
        raise ValueError(
            f"the corpus {name!r} must hold at least a batch of {how.batch} exchanges, "
            f"got {len(corpus)}"
        )
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    examples = [encoder.example(exchange) for exchange in corpus]
    rng = stream(seed, Purpose.CATALOGUE, 0)
    start = new_patch(_placement(how, release.shapes), release.shapes, release.version, rng)
    drawn = stream(seed, Purpose.CATALOGUE, 1, number)
    per_epoch = len(examples) // how.batch
    orders: list[int] = []
    while len(orders) < how.steps * how.batch:
        orders += drawn.permutation(len(examples)).tolist()[: per_epoch * how.batch]
    batches = tuple(
        tuple(examples[place] for place in orders[step * how.batch : (step + 1) * how.batch])
        for step in range(how.steps)
    )
    return TuneJob(
        release=release.path,
        start=start,
        batches=batches,
        learning_rate=how.learning_rate,
        clip=CLIP,
    )


def _placement(how: TextCatalogue, shapes: Shapes) -> Placement:
    """Returns adapters on every site of the top layers."""
    first = max(0, shapes.layers - how.layers)
    sites = tuple(Site(layer, m) for layer in range(first, shapes.layers) for m in MODULES)
    return Placement(sites=sites, rank=how.rank, alpha=how.alpha)


def _find_tuned(store: Path, job: TuneJob, release: Manifest) -> Patch | None:
    """Returns the patch that a tune came to before; None where its key leads to none."""
    key = _key_file(store, job, release)
    digest = key.read_text(errors="replace") if key.is_file() else ""
    return fetch_patch(store, digest) if holds_patch(store, digest) else None


def _key_file(store: Path, job: TuneJob, release: Manifest) -> Path:
    """Returns the file that leads from a tune's inputs, the release by its digest, to its patch."""
    return store / f"{job_digest(replace(job, release=release.digest))}.tuned"


def _check(how: TextCatalogue) -> None:
    check_counts(how, "corpus", "steps", "batch", "layers", "rank")
    check_worse(how.worse)
    for name in ("learning_rate", "alpha"):
        if not getattr(how, name) > 0:
            raise ValueError(f"catalogue.{name} must be > 0, got {getattr(how, name)}")
