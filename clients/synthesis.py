"""Synthesis: training pairs that a device makes from those it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fleettune.exchanges import Exchange


@runtime_checkable
class Synthesis(Protocol):
    """A rule that multiplies the buffer before tuning."""

    def expand(self, buffer: Sequence[Exchange]) -> tuple[Exchange, ...]:
        """Returns the exchanges to tune on: the buffer and whatever was made from it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSynthesis:
    """Tunes on what the buffer holds."""

    def expand(self, buffer: Sequence[Exchange]) -> tuple[Exchange, ...]:
        """Returns the buffer."""
        return tuple(buffer)
