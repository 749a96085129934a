"""What a decoder under trial is: valid inputs, and what reads one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.mutator import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A decoder.

    Attributes:
        seeds: Returns valid inputs, each as named parts.
        decode: Reads the parts of one input; has a folder of its own for files.
        hard: Returns inputs that no mutation comes to, tried behind the seeds.
    """

    seeds: Callable[[], Sequence[Parts]]
    decode: Callable[[Parts, Path], object]
    hard: Callable[[], Sequence[Parts]] = tuple


class UnsendableError(Exception):
    """A mutation that no sender could make; nothing was decoded."""


def dumped(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """Returns a value as the bytes of a JSON file."""
    return json.dumps(value).encode()


def text_of(data: bytes) -> str:
    """Returns bytes as the text that stands in a message."""
    return data.decode("utf-8", "surrogateescape")


def laid_out(parts: Parts, folder: Path) -> Path:
    """Writes parts as the files of a folder, and nothing else is in it."""
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    return folder
