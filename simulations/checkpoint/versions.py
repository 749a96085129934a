"""Reads and writes the versions of what decides a run's bytes besides its configuration."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from fleettune.data.personas import WORLD_VERSION

CHECKPOINT_FORMAT = 3
"""Raised when a checkpoint's tables, or what stands in them, change; 1 had no number."""

_FILE = "versions.json"
_PACKAGES = ("flwr", "torch", "transformers", "peft", "ray", "hydra-core", "numpy", "polars")


def versions() -> dict[str, str | int]:
    """Returns the versions of Python, of this package and its world, and of the libraries."""
    return {
        "python": platform.python_version(),
        "fleettune": importlib.metadata.version("fleettune"),
        "world": WORLD_VERSION,
        "checkpoint": CHECKPOINT_FORMAT,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


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
    (folder / _FILE).write_text(json.dumps(versions(), indent=1))


def read_versions(folder: Path) -> dict[str, Any]:
    """Returns the versions that a run was begun with."""
    return json.loads((folder / _FILE).read_text())
