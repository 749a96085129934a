"""Words of the built-in world: slots, registers, moods and the things that users ask.

They stand in ``vocabulary.yaml``. That file is part of the world's digest
(`fleettune.data.personas.WORLD_VERSION`): the pocket model was trained on these words, so a change
there changes every figure and needs a retrained model.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Something that users ask for.

    Attributes:
        domain: What it is about.
        phrases: Paraphrases of the same request.
        register: The same term in four levels of expertise, simple to expert.
        core: The answer at the lowest level of informativeness.
        details: Three clauses; level n of informativeness, 0 to 3, appends the first n.
    """

    domain: str
    phrases: tuple[str, ...]
    register: tuple[str, str, str, str]
    core: str
    details: tuple[str, str, str]


def _tuples(value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
    """Returns lists within a value as tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType] - YAML
    return tuple(map(_tuples, value)) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - YAML


_READ: dict[str, Any] = _tuples(
    yaml.safe_load((files("fleettune") / "data" / "vocabulary.yaml").read_text(encoding="utf-8"))
)
SLOTS: dict[str, tuple[str, ...]] = _READ["slots"]
"""What can differ between two users as a fact."""
ASKS: tuple[Ask, ...] = tuple(Ask(**ask) for ask in _READ["asks"])
"""Seventeen requests in six domains; the seventh domain is the mood check-in."""
TONES: tuple[tuple[str, str], ...] = _READ["tones"]
"""Prefix and suffix of an answer in four levels of warmth."""
REQUESTS: dict[str, tuple[str, str, str, str]] = _READ["requests"]
"""How a request asks for one level of one style axis: ``answer warmly: ...``."""
GREETINGS: tuple[str, ...] = _READ["greetings"]
MOODS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = _READ["moods"]
"""Mood, the words that users may call it, and the clauses that tell of it."""
VENDOR_ADDRESS: str = _READ["vendor_address"]
"""How every question of the vendor's new wording opens, so that a question tells which wording its
answer has. Without it a release would unlearn the old wording, and retuning would win by
relearning that, without any person in the world.
"""
VENDOR_QUESTIONS: tuple[tuple[str, str], ...] = _READ["vendor_questions"]
VENDOR_ANSWERS: tuple[tuple[str, str], ...] = _READ["vendor_answers"]
"""What a vendor's new wording replaces; a release's corpus holds a share of it."""
