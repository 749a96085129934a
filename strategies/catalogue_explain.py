"""Explain: what every source of a catalogue says about how its entries are explained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from fleettune.backbone import BackboneSource
from fleettune.summaries import (
    AnswerEmbedding,
    SentenceEmbedding,
    StyleQuestion,
    Stylometry,
    Summariser,
)
from fleettune.summariser_models import check_local_model, check_minilm, local_model
from fleettune.typed import OMIT_DEFAULT
from strategies.catalogue import Explaining

BY_A_MODEL = {"embedding": AnswerEmbedding, "question": StyleQuestion}
"""Summarisers that may read with another model than the release."""
SUMMARISERS = {**BY_A_MODEL, "stylometry": Stylometry, "minilm": SentenceEmbedding}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """How a catalogue's entries are explained.

    Attributes:
        questions: How many the base and every entry answer.
        new_tokens: Longest of those answers.
        summariser: ``embedding``, ``question``, ``stylometry`` or ``minilm``
            (`fleettune.summaries`).
        summariser_model: What the first two of these read with; None: the release.
        residual: As `strategies.catalogue.Explaining`.
        beside: As there.
        shrink: As there.

    Raises:
        ValueError: If a value breaks its rule.
    """

    questions: int = 100
    new_tokens: int = 48
    summariser: str = "stylometry"
    summariser_model: BackboneSource | None = field(default=None, metadata=OMIT_DEFAULT)
    residual: float = 0.02
    beside: int = 8
    shrink: float | None = 0.3

    def __post_init__(self) -> None:
        if self.summariser not in SUMMARISERS:
            raise ValueError(
                f"catalogue.explain.summariser must be one of {tuple(SUMMARISERS)}, "
                f"got {self.summariser!r}"
            )
        if self.summariser_model is not None and self.summariser not in BY_A_MODEL:
            raise ValueError(
                "catalogue.explain.summariser_model must be null unless "
                f"catalogue.explain.summariser is one of {tuple(BY_A_MODEL)}, got "
                f"{self.summariser_model.path!r} with {self.summariser!r}"
            )
        for name, least in (("questions", 1), ("new_tokens", 1), ("residual", 0), ("beside", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(
                    f"catalogue.explain.{name} must be >= {least}, got {getattr(self, name)}"
                )
        if self.shrink is not None and not 0 < self.shrink <= 1:
            raise ValueError(
                f"catalogue.explain.shrink must be null or > 0 and <= 1, got {self.shrink}"
            )

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

    def of(self, questions: tuple[str, ...]) -> Explaining:
        """Returns how entries are explained by their answers to these questions."""
        return Explaining(
            questions=questions,
            summariser=self.reader,
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
