"""Sources of catalogues: where entries come from. All are explained and offered alike.

Text of the server's own (`strategies.catalogue.text_sources`), adapters that somebody else tuned
(`strategies.catalogue.peft_source`), or deltas that devices shared
(`strategies.catalogue.cluster_source`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fleettune.data.exchanges import Population
from fleettune.data.tokens import Example
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Shapes
from strategies.catalogue.cluster_source import ClusterCatalogue
from strategies.catalogue.entries import Entry
from strategies.catalogue.entry_questions import check_outside, outside_questions, own_answers
from strategies.catalogue.entry_tools import Workshop
from strategies.catalogue.peft_source import ImportedCatalogue
from strategies.catalogue.still_valid import Outlived
from strategies.catalogue.text_sources import (
    CorporaCatalogue,
    StyleCatalogue,
    check_layers,
    text_entries,
    text_held_out,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncatalogued:
    """No catalogue."""


Source: TypeAlias = StyleCatalogue | CorporaCatalogue | ImportedCatalogue | ClusterCatalogue
"""What makes a catalogue."""
Cataloguing: TypeAlias = Uncatalogued | Source
"""What a plan may name."""


def made_entries(
    how: Source, release: Manifest, outlived: Outlived | None, workshop: Workshop
) -> tuple[Entry, ...] | None:
    """Returns the entries of a release; None where they cannot be made yet.

    Args:
        how: Where they come from.
        release: The release.
        outlived: The entries of the release before; None for the first release.
        workshop: What they are made with.
    """
    if isinstance(how, ImportedCatalogue):
        return how.made(release, outlived)
    if isinstance(how, ClusterCatalogue):
        return how.made(release, outlived, workshop)
    return text_entries(how, release, outlived, workshop)


def asked(how: Source, workshop: Workshop) -> tuple[str, ...]:
    """Returns the questions that base and entries answer."""
    if isinstance(how, ImportedCatalogue | ClusterCatalogue):
        return outside_questions(how.explain, workshop)
    return how.asked(workshop.seed)


def held_out(
    how: Source, entries: Sequence[Entry], release: Manifest, workshop: Workshop
) -> Mapping[str, tuple[Example, ...]]:
    """Returns the examples by which entries of a release are judged when the next one comes."""
    if isinstance(how, ImportedCatalogue | ClusterCatalogue):
        return own_answers(how.explain, entries, release, workshop)
    return text_held_out(how, release, workshop)


def check_source(how: Source, shapes: Shapes, population: Population) -> None:
    """Raises ValueError if a source cannot make entries for a model and a population."""
    if isinstance(how, ImportedCatalogue):
        how.check(shapes, population)
    elif isinstance(how, ClusterCatalogue):
        check_outside(how.explain, population)
    else:
        check_layers(how, shapes)
