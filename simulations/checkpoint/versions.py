"""Reads and writes the versions of what decides a run's bytes besides its configuration."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from yaml import YAMLError

from fleettune.data.personas import WORLD_VERSION
from fleettune.records import read_json
from fleettune.releases.model_files import file_digest
from fleettune.whole_files import write_whole

CHECKPOINT_FORMAT = 3
"""Raised when a checkpoint's tables, or what stands in them, change; 1 had no number."""

_FILE = "versions.json"
_PACKAGES = ("flwr", "torch", "transformers", "peft", "ray", "hydra-core", "numpy", "polars")
_SOURCES = ("fleettune", "clients", "strategies", "simulations", "conf/hardware")
"""Folders of our own; the rest of ``conf`` is compared as the configuration that it becomes."""
_DECIDING = (".py", ".yaml", ".json", ".safetensors")


def versions() -> dict[str, str | int]:
    """Returns the versions of Python, of this package, its world and source, and of libraries."""
    return {
        "python": platform.python_version(),
        "fleettune": importlib.metadata.version("fleettune"),
        "world": WORLD_VERSION,
        "checkpoint": CHECKPOINT_FORMAT,
        **{f"source of {name}": _own_source(name) for name in _SOURCES},
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


@cache
def _own_source(name: str) -> str:
    """Returns the digest of a folder of ours, as it was when this process first asked."""
    wing, *inside = name.split("/")
    return digest_source(Path(str(files(wing))).joinpath(*inside))


def digest_source(folder: Path) -> str:
    """Returns 16 hexadecimal digits of a SHA-256 of all files in a folder that may decide results.

    An edited checkout keeps its version number; its files tell it from another one.
    """
    found = sorted(file for file in folder.rglob("*") if file.suffix in _DECIDING)
    lines = (f"{file.relative_to(folder).as_posix()} {file_digest(file)}\n" for file in found)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def check_format(folder: Path) -> None:
    """Raises ValueError if an interrupted run's checkpoint is of another format than ours."""
    found = read_versions(folder).get("checkpoint", 1)
    if found != CHECKPOINT_FORMAT:
        raise ValueError(
            f"{folder} cannot be resumed: its checkpoint has format {found}, and this version of "
            f"fleettune reads format {CHECKPOINT_FORMAT}; start the run anew in another folder"
        )


def write_versions(folder: Path) -> None:
    """Writes the versions into a run's folder."""
    write_whole(folder / _FILE, json.dumps(versions(), indent=1).encode())


def read_versions(folder: Path) -> dict[str, Any]:
    """Returns the versions that a run was begun with; ValueError if the file is damaged."""
    return read_own_file(folder / _FILE, partial(read_json, where=_FILE), dict)


def read_own_file(file: Path, read: Callable[[str], Any], kind: type) -> Any:  # noqa: ANN401 - read's
    """Returns what a run wrote into its folder for its resumption.

    Args:
        file: The file.
        read: How its text is read.
        kind: What that gives.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    try:
        found = read(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError, RecursionError) as error:
        found, told = None, f" ({type(error).__name__})"
    else:
        told = ""
    if not isinstance(found, kind):
        raise ValueError(
            f"{file} is missing or damaged{told}, so this run cannot be resumed; begin it anew in "
            "another folder"
        )
    return found
