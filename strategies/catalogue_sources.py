"""Sources of catalogues: which text the entries are tuned on, and what they are asked.

Both kinds are tuned, explained and offered alike (`strategies.cataloguing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from fleettune.adapters import Placement
from fleettune.backbone import BackboneSource
from fleettune.corpora import Corpora, drawn_exchanges
from fleettune.exchanges import Exchange
from fleettune.seeds import Purpose, stream
from fleettune.sites import MODULES, Site
from fleettune.styles import Style, plain_questions, style_corpus, style_grid
from fleettune.summaries import (
    AnswerEmbedding,
    SentenceEmbedding,
    StyleQuestion,
    Stylometry,
    Summariser,
)
from fleettune.summariser_models import check_local_model, check_minilm, local_model
from fleettune.typed import OMIT_DEFAULT
from fleettune.work import Shapes

BY_A_MODEL = {"embedding": AnswerEmbedding, "question": StyleQuestion}
"""Summarisers that may read with another model than the release."""
SUMMARISERS = {**BY_A_MODEL, "stylometry": Stylometry, "minilm": SentenceEmbedding}
HELD_OUT = 16
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
        new_tokens: Longest of those answers.
        summariser: ``embedding``, ``question``, ``stylometry`` or ``minilm``
            (`fleettune.summaries`).
        summariser_model: What the first two of these read with; None: the release.
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
    new_tokens: int = 48
    summariser: str = "stylometry"
    summariser_model: BackboneSource | None = field(default=None, metadata=OMIT_DEFAULT)
    residual: float = 0.02
    beside: int = 8
    shrink: float | None = 0.3
    worse: float = 0.02

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
        return {style.name: style_corpus(style, count, seed) for style in self.styles}

    def asked(self, seed: int) -> tuple[str, ...]:
        """Returns the questions that base and entries answer."""
        return plain_questions(self.questions, seed + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporaCatalogue:
    """A catalogue of patches tuned on samples of corpora (`fleettune.corpora`), one entry each.

    Attributes:
        text: The corpora; entries and questions are of the server's part.
        corpus: As `StyleCatalogue`, as are all fields below.
        steps: As there.
        batch: As there.
        learning_rate: As there.
        layers: As there.
        rank: As there.
        alpha: As there.
        questions: As there; as many of every corpus.
        new_tokens: As there.
        summariser: As there.
        summariser_model: As there.
        residual: As there.
        beside: As there.
        shrink: As there.
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
    questions: int = 36
    new_tokens: int = 32
    summariser: str = "stylometry"
    summariser_model: BackboneSource | None = field(default=None, metadata=OMIT_DEFAULT)
    residual: float = 0.02
    beside: int = 8
    shrink: float | None = 0.3
    worse: float = 0.02

    def __post_init__(self) -> None:
        _check(self)

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
        each = -(-self.questions // len(files))
        drawn = [
            drawn_exchanges(
                self.text, corpus.name, each, stream(seed, Purpose.CATALOGUE, 7, number)
            )
            for number, corpus in enumerate(files)
        ]
        return tuple(exchange.question for part in drawn for exchange in part)


Tuned: TypeAlias = StyleCatalogue | CorporaCatalogue
"""Catalogues whose entries are tuned on text."""
Cataloguing: TypeAlias = Uncatalogued | StyleCatalogue | CorporaCatalogue
"""What a plan may name."""


def placement(how: Tuned, shapes: Shapes) -> Placement:
    """Returns adapters on every site of the top layers."""
    first = max(0, shapes.layers - how.layers)
    sites = tuple(Site(layer, m) for layer in range(first, shapes.layers) for m in MODULES)
    return Placement(sites=sites, rank=how.rank, alpha=how.alpha)


def read_as(how: Tuned) -> Summariser:
    """Returns what turns pairs of answers into vectors."""
    if how.summariser_model is not None:
        return BY_A_MODEL[how.summariser](model=local_model(how.summariser_model))
    return cast(Summariser, SUMMARISERS[how.summariser]())


def check_summariser(how: Tuned) -> None:
    """Raises ValueError if the summariser's model cannot be had here; reads no backbone."""
    if how.summariser == "minilm":
        check_minilm()
    if how.summariser_model is not None:
        check_local_model(how.summariser_model)


def _check(how: Tuned) -> None:
    if how.summariser not in SUMMARISERS:
        raise ValueError(
            f"catalogue.summariser must be one of {tuple(SUMMARISERS)}, got {how.summariser!r}"
        )
    if how.summariser_model is not None and how.summariser not in BY_A_MODEL:
        raise ValueError(
            f"catalogue.summariser_model must be null unless catalogue.summariser is one of "
            f"{tuple(BY_A_MODEL)}, got {how.summariser_model.path!r} with {how.summariser!r}"
        )
    for name in ("corpus", "steps", "batch", "layers", "rank", "questions", "new_tokens"):
        if getattr(how, name) < 1:
            raise ValueError(f"catalogue.{name} must be >= 1, got {getattr(how, name)}")
    if how.worse < 0:
        raise ValueError(f"catalogue.worse must be >= 0 nats per token, got {how.worse}")
