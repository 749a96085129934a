"""Imported catalogues: entries that somebody else tuned, as PEFT LoRA adapters.

They are read once, for the first release. The server has no text to tune them anew on, so one that
a later release breaks is dropped for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleettune.adapters.patch_files import read_peft
from fleettune.catalogue.manifest import IMPORTED
from fleettune.data.tokens import Example
from fleettune.releases.manifest import Manifest
from fleettune.shapes import Shapes
from strategies.catalogue.entries import Entry, EntryTools
from strategies.catalogue.entry_questions import (
    check_questions,
    collect_own_answers,
    pick_questions,
)
from strategies.catalogue.explain import Explain, check_worse
from strategies.catalogue.still_valid import EntryValidity


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter.

    Attributes:
        name: Short name, that of its entry.
        path: Its folder, of ``adapter_config.json`` and ``adapter_model.safetensors``.
    """

    name: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCatalogue:
    """A catalogue of PEFT adapters that were tuned on the first release.

    Attributes:
        adapters: The adapters, two or more.
        questions: What base and entries may be asked; text that no user wrote, for it goes to
            every device.
        explain: How entries are explained.
        worse: Nats per token by which a release may make an entry's own answers less likely and it
            is still reused.

    Raises:
        ValueError: If a value breaks its rule.
    """

    adapters: tuple[Adapter, ...]
    questions: tuple[str, ...]
    explain: Explain
    worse: float

    def __post_init__(self) -> None:
        check_worse(self.worse)
        check_questions(self.explain, self.questions)
        names = [adapter.name for adapter in self.adapters]
        if len(names) < 2 or len(set(names)) < len(names) or not all(names):
            raise ValueError(
                "catalogue.adapters must be two or more of different names, got "
                f"{names}: list them as [{{name: terse, path: FOLDER}}, ...]"
            )

    def check(self, shapes: Shapes) -> None:
        """Raises ValueError if an adapter cannot be read."""
        self._read(0, shapes)

    def make_entries(
        self, release: Manifest, before: EntryValidity | None, tools: EntryTools
    ) -> tuple[Entry, ...]:
        """Returns the entries of a release: what is left of those before it, or all of them."""
        return self._read(release.version, release.shapes) if before is None else before.valid

    def draw_questions(self, tools: EntryTools) -> tuple[str, ...]:
        """Returns questions of the list."""
        return pick_questions(self.explain, self.questions, tools.seed)

    def hold_out(
        self, entries: Sequence[Entry], release: Manifest, tools: EntryTools
    ) -> Mapping[str, tuple[Example, ...]]:
        """Returns the entries' own answers."""
        asked, most = self.draw_questions(tools), self.explain.new_tokens
        return collect_own_answers(asked, most, entries, release, tools)

    def _read(self, release: int, shapes: Shapes) -> tuple[Entry, ...]:
        """Returns an entry per adapter."""
        return tuple(_entry(adapter, release, shapes) for adapter in self.adapters)


def _entry(adapter: Adapter, release: int, shapes: Shapes) -> Entry:
    try:
        patch = read_peft(Path(adapter.path), release, shapes)
    except ValueError as error:
        raise ValueError(f"catalogue.adapters, {adapter.name}: {error}") from error
    return Entry(name=adapter.name, origin=IMPORTED, patch=patch)
