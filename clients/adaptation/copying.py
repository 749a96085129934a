"""Copying: rivals without a model, which answer with what the user said before.

They answer a question with the stored answer of the stored question that is nearest to it, as it is
or with the new question's words put in where the old one had others. They show how far a world can
be lived in from memory alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from clients.adaptation.decision import Action, Decision
from clients.adaptation.protocol import RuleTraits
from fleettune.adapters.patch import Patch
from fleettune.data.exchanges import Exchange
from fleettune.releases.manifest import Manifest

_WORD = re.compile(r"\w+|[^\w\s]")


def nearest_by_words(held: Sequence[Exchange], question: str) -> Exchange:
    """Returns the exchange whose question shares most words with this one, the newest of several.

    Shared words are counted as intersection over union of the two sets of words.
    """
    asked = set(_WORD.findall(question))

    def likeness(place: int) -> tuple[float, int]:
        words = set(_WORD.findall(held[place].question))
        return len(words & asked) / max(len(words | asked), 1), place

    return held[max(range(len(held)), key=likeness)]


def edit_answer(stored: Exchange, question: str) -> str:
    """Returns a stored answer with the words of a new question in place of those of the stored one.

    The two questions are aligned word by word. Where as many words stand in place of others, each
    word of the stored answer that equals one of the old words becomes the new word.
    """
    old, new = _WORD.findall(stored.question), _WORD.findall(question)
    swaps: dict[str, str] = {}
    for kind, i, j, k, n in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "replace" and j - i == n - k:
            swaps |= dict(zip(old[i:j], new[k:n], strict=True))
    return _WORD.sub(lambda word: swaps.get(word.group(), word.group()), stored.response)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyNearest:
    """Trains nothing and asks no model: copies the answer of the nearest exchange that it holds.

    Attributes:
        nearest: What is near: ``words`` that two questions share, or their ``embedding``.
        edit: Whether the new question's words are put into the answer (`edit_answer`).
    """

    nearest: str
    edit: bool

    def __post_init__(self) -> None:
        if self.nearest not in ("words", "embedding"):
            raise ValueError(f"nearest must be words or embedding, got {self.nearest!r}")

    @property
    def traits(self) -> RuleTraits:
        """It answers without the model, which at most embeds questions."""
        return RuleTraits(copier=self.copy_answer, neighbours=int(self.nearest == "embedding"))

    def copy_answer(self, held: Sequence[Exchange], question: str) -> str:
        """Returns the answer; empty where nothing is held."""
        if not held:
            return ""
        stored = nearest_by_words(held, question)
        return edit_answer(stored, question) if self.edit else stored.response

    def decide(self, release: Manifest, patch: Patch | None) -> Decision:
        """Returns never."""
        return Decision(action=Action.NEVER, reason="copying")
