"""Sources of entries: what a catalogue's entries are made from, as one protocol.

A source of one's own has these four methods, is written into `strategies.plan.CATALOGUES`, and is
named by a file of ``conf/catalogue/``. All entries are explained and offered alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from fleettune.data.tokens import Example
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Shapes
from strategies.catalogue.entries import Entry, EntryTools
from strategies.catalogue.explain import Explain
from strategies.catalogue.still_valid import EntryValidity


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncatalogued:
    """No catalogue."""


@runtime_checkable
class EntrySource(Protocol):
    """Where entries come from; a frozen value that travels in a plan."""

    @property
    def explain(self) -> Explain:
        """How entries are explained."""
        ...

    @property
    def worse(self) -> float:
        """Nats per token by which a release may make an entry worse and it is still reused."""
        ...

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if it cannot make entries for a model."""
        ...

    def make_entries(
        self, release: Manifest, before: EntryValidity | None, tools: EntryTools
    ) -> tuple[Entry, ...] | None:
        """Returns the entries of a release; None where they cannot be made yet.

        Args:
            release: The release.
            before: The entries of the release before; None for the first release.
            tools: What they are made with.
        """
        ...

    def draw_questions(self, tools: EntryTools) -> tuple[str, ...]:
        """Returns the questions that base and entries answer."""
        ...

    def hold_out(
        self, entries: Sequence[Entry], release: Manifest, tools: EntryTools
    ) -> Mapping[str, tuple[Example, ...]]:
        """Returns the examples by which entries of a release are judged when the next one comes."""
        ...


CatalogueSource: TypeAlias = Uncatalogued | EntrySource
"""What a plan may name."""
