"""Catalogues of text: entries tuned on corpora of the server, each on one style or one file.

What is held out of an entry's text judges it when a new release comes; an entry that fails is tuned
anew on the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from fleettune.adapters.patch import Placement
from fleettune.data.exchanges import Exchange
from fleettune.data.style_corpora import Corpora, drawn_exchanges
from fleettune.data.styles import Style, plain_questions, style_corpus, style_grid
from fleettune.data.tokens import Example, open_encoder
from fleettune.releases.manifest import Manifest
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site
from strategies.catalogue.entries import Entry
from strategies.catalogue.entry_tools import Workshop
from strategies.catalogue.entry_tuning import Recipe, corpus_entries
from strategies.catalogue.explain import Explain, check_counts, check_worse
from strategies.catalogue.still_valid import Outlived

HELD_OUT = 16
"""Exchanges of an entry's corpus by which a new release is judged; never trained on."""
_COUNTS = ("corpus", "steps", "batch", "layers", "rank")


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

    def __post_init__(self) -> None:
        check_counts(self, *_COUNTS)
        check_worse(self.worse)
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
        return {style.name: style_corpus(style, count, seed) for style in self.styles}

    def asked(self, seed: int) -> tuple[str, ...]:
        """Returns the questions that base and entries answer."""
        return plain_questions(self.explain.questions, seed + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporaCatalogue:
    """A catalogue of patches, one tuned on each corpus (`fleettune.data.style_corpora`).

    Attributes:
        text: The corpora; entries and questions are of the server's part.
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

    def __post_init__(self) -> None:
        check_counts(self, *_COUNTS)
        check_worse(self.worse)

    def corpora(self, seed: int) -> Mapping[str, tuple[Exchange, ...]]:
        """Returns the text of every entry, what is held out behind the rest."""
        return {
            corpus.name: drawn_exchanges(
                self.text,
                corpus.name,
                self.corpus + HELD_OUT,
                stream(seed, Purpose.CATALOGUE, 6, number),
            )
            for number, corpus in enumerate(self.text.files)
        }

    def asked(self, seed: int) -> tuple[str, ...]:
        """Returns the questions that base and entries answer: of all corpora alike."""
        files = self.text.files
        each = -(-self.explain.questions // len(files))
        drawn = [
            drawn_exchanges(
                self.text, corpus.name, each, stream(seed, Purpose.CATALOGUE, 7, number)
            )
            for number, corpus in enumerate(files)
        ]
        return tuple(exchange.question for part in drawn for exchange in part)


Texts: TypeAlias = StyleCatalogue | CorporaCatalogue
"""Catalogues whose entries are tuned on text."""


def placement(how: Texts, shapes: Shapes) -> Placement:
    """Returns adapters on every site of the top layers."""
    first = max(0, shapes.layers - how.layers)
    sites = tuple(Site(layer, m) for layer in range(first, shapes.layers) for m in MODULES)
    return Placement(sites=sites, rank=how.rank, alpha=how.alpha)


def check_layers(how: Texts, shapes: Shapes) -> None:
    """Raises ValueError if a model has fewer layers than are to be adapted."""
    if how.layers > shapes.layers:
        raise ValueError(
            f"catalogue.layers must be at most the model's {shapes.layers}, got {how.layers}"
        )


def text_entries(
    how: Texts, release: Manifest, outlived: Outlived | None, workshop: Workshop
) -> tuple[Entry, ...]:
    """Returns an entry per corpus: kept from the release before, or tuned."""
    corpora = how.corpora(workshop.seed)
    kept = {} if outlived is None else {entry.name: entry for entry in outlived.kept}
    due = {name: c[:-HELD_OUT] for name, c in corpora.items() if name not in kept}
    recipe = Recipe(
        placement=placement(how, release.shapes),
        steps=how.steps,
        batch=how.batch,
        learning_rate=how.learning_rate,
        clip=1.0,
        seed=workshop.seed,
    )
    tuned = corpus_entries(due, recipe, release, workshop.run, workshop.store) if due else ()
    entries = {entry.name: entry for entry in tuned} | kept
    return tuple(entries[name] for name in corpora)


def text_held_out(
    how: Texts, release: Manifest, workshop: Workshop
) -> Mapping[str, tuple[Example, ...]]:
    """Returns what is held out of every entry's text."""
    encoder = open_encoder(Path(release.path), release.template, release.max_tokens)
    corpora = how.corpora(workshop.seed)
    return {name: tuple(map(encoder.example, text[-HELD_OUT:])) for name, text in corpora.items()}
