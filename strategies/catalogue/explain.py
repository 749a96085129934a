"""Explain: what every source of a catalogue says about how its entries are explained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from fleettune.backbone.causal_lm import BackboneSource
from fleettune.catalogue.style_vectors import (
    AnswerEmbedding,
    SentenceEmbedding,
    StyleQuestion,
    Stylometry,
    Summariser,
)
from fleettune.catalogue.summariser_models import check_local_model, check_minilm, local_model
from fleettune.records import OMIT_DEFAULT
from strategies.catalogue.candidate_words import Instructed, Measured
from strategies.catalogue.entries import Explaining, WordSource, check_plain_words
from strategies.catalogue.proposed_words import Proposed

BY_A_MODEL = {"embedding": AnswerEmbedding, "question": StyleQuestion}
"""Summarisers that may read with another model than the release."""
SUMMARISERS = {**BY_A_MODEL, "stylometry": Stylometry, "minilm": SentenceEmbedding}
WORDS = ("measured", "instructed", "proposed")
GRAM_SCHMIDT, RELEASED = "gram_schmidt", "released"


_LEAST = (("questions", 1), ("new_tokens", 1), ("most_words", 1), ("residual", 0), ("beside", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """How a catalogue's entries are explained.

    Attributes:
        questions: How many the base and every entry answer.
        new_tokens: Longest of those answers.
        summariser: ``embedding``, ``question``, ``stylometry`` or ``minilm``
            (`fleettune.catalogue.style_vectors`).
        summariser_model: What the first two of these read with, and what words are proposed by;
            None: the release.
        words: Where words and their directions come from: ``measured`` in sampled answers, from the
            list ``instructed`` to the release, or ``proposed`` by the model that reads.
        most_words: How many are taken of proposed ones.
        decomposition: ``gram_schmidt`` (`fleettune.catalogue.decomposition`), or ``released``, as
            XPerT's code (`fleettune.catalogue.decomposition_released`), which stops at no residual.
        residual: As `strategies.catalogue.entries.Explaining`.
        beside: As there.
        shrink: As there.

    Raises:
        ValueError: If a value breaks its rule.
    """

    questions: int = 100
    new_tokens: int = 48
    summariser: str = "stylometry"
    summariser_model: BackboneSource | None = field(default=None, metadata=OMIT_DEFAULT)
    words: str = field(default="measured", metadata=OMIT_DEFAULT)
    most_words: int = field(default=12, metadata=OMIT_DEFAULT)
    decomposition: str = field(default=GRAM_SCHMIDT, metadata=OMIT_DEFAULT)
    residual: float = 0.02
    beside: int = 8
    shrink: float | None = 0.3

    def __post_init__(self) -> None:
        for name, known in (
            ("summariser", tuple(SUMMARISERS)),
            ("words", WORDS),
            ("decomposition", (GRAM_SCHMIDT, RELEASED)),
        ):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"catalogue.explain.{name} must be one of {known}, got {value!r}")
        if self.summariser_model is not None and self.summariser not in BY_A_MODEL:
            raise ValueError(
                "catalogue.explain.summariser_model must be null unless "
                f"catalogue.explain.summariser is one of {tuple(BY_A_MODEL)}, got "
                f"{self.summariser_model.path!r} with {self.summariser!r}"
            )
        for name, least in _LEAST:
            if not getattr(self, name) >= least:
                raise ValueError(
                    f"catalogue.explain.{name} must be >= {least}, got {getattr(self, name)}"
                )
        if self.shrink is not None and not 0 < self.shrink <= 1:
            raise ValueError(
                f"catalogue.explain.shrink must be null or > 0 and <= 1, got {self.shrink}"
            )
        if self.decomposition == RELEASED:
            check_plain_words(self.beside, self.shrink, "catalogue.explain")

    def check(self) -> None:
        """Raises ValueError if the summariser's model cannot be had here; reads no backbone."""
        if self.summariser == "minilm":
            check_minilm()
        if self.summariser_model is not None:
            check_local_model(self.summariser_model)

    @property
    def reader(self) -> Summariser:
        """What turns pairs of answers into vectors."""
        if self.summariser_model is not None:
            return BY_A_MODEL[self.summariser](model=local_model(self.summariser_model))
        return cast(Summariser, SUMMARISERS[self.summariser]())

    @property
    def source(self) -> WordSource:
        """Where words and their directions come from."""
        if self.words == "measured":
            return Measured()
        if self.words == "instructed":
            return Instructed()
        model = None if self.summariser_model is None else local_model(self.summariser_model)
        return Proposed(most=self.most_words, model=model)

    def of(self, questions: tuple[str, ...]) -> Explaining:
        """Returns how entries are explained by their answers to these questions."""
        return Explaining(
            questions=questions,
            summariser=self.reader,
            words=self.source,
            released=self.decomposition == RELEASED,
            new_tokens=self.new_tokens,
            residual=self.residual,
            beside=self.beside,
            shrink=self.shrink,
        )


def check_counts(source: object, *names: str) -> None:
    """Raises ValueError if one of a source's counts is < 1."""
    for name in names:
        if getattr(source, name) < 1:
            raise ValueError(f"catalogue.{name} must be >= 1, got {getattr(source, name)}")


def check_worse(worse: float) -> None:
    """Raises ValueError if what a release may make worse is < 0."""
    if worse < 0:
        raise ValueError(f"catalogue.worse must be >= 0 nats per token, got {worse}")
