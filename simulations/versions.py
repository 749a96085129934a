"""Versions of whatever decides a run's bytes, besides its configuration."""

from __future__ import annotations

import importlib.metadata
import platform

from fleettune.personas import WORLD_VERSION

_PACKAGES = ("flwr", "torch", "transformers", "peft", "ray", "hydra-core", "numpy", "polars")


def versions() -> dict[str, str | int]:
    """Returns the versions of Python, of this package and its world, and of the libraries."""
    return {
        "python": platform.python_version(),
        "fleettune": importlib.metadata.version("fleettune"),
        "world": WORLD_VERSION,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }
