"""Outputs: how much each adapter of a patch adds to what its matrix gives, as a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleettune.adapters.patch import Patch
from fleettune.data.tokens import Example
from fleettune.shapes import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNormJob:
    """Measure the squared norm of every adapter's output.

    Attributes:
        release: Folder of the release.
        patch: The adapters.
        examples: What they see.

    Raises:
        ValueError: If there is nothing to measure, or nothing to measure it on.
    """

    release: str
    patch: Patch
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        if not self.patch.ranks or not self.examples:
            raise ValueError(
                "outputs need an adapter and an example, got "
                f"{len(self.patch.ranks)} adapters and {len(self.examples)} examples"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputNormResult:
    """By site: ``sum ||dW x||^2`` over all tokens of the examples.

    Source: LoRA-drop, docs/methods.md#lora-drop.
    """

    squares: Mapping[Site, float]
