"""Patch store: patches as safetensors files, each named by the digest of what it computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save

from fleettune.adapters.patch import Patch, from_arrays, to_arrays


def keep_patch(store: Path, patch: Patch) -> str:
    """Writes a patch where it is not there yet and returns its digest."""
    digest = patch.digest()
    file = _file(store, digest)
    if not file.is_file():
        store.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        header = json.dumps({"alpha": patch.alpha, "release": patch.release})
        partial.write_bytes(save(to_arrays(patch), metadata={"fleettune": header}))
        partial.rename(file)
    return digest


def fetch_patch(store: Path, digest: str) -> Patch:
    """Returns the patch of a digest.

    Raises:
        ValueError: If the store holds none, or holds other bytes under that name.
    """
    file = _file(store, digest)
    if not file.is_file():
        raise ValueError(f"patch store {store} must hold the patch {digest}, does not")
    opened: Any = safe_open(file, framework="numpy")  # safetensors has no types
    with opened as tensors:
        header = json.loads(tensors.metadata()["fleettune"])
        arrays = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    patch = from_arrays(arrays, header["release"], header["alpha"])
    if patch.digest() != digest:
        raise ValueError(f"patch {digest} in {store} must have that digest, got {patch.digest()}")
    return patch


def _file(store: Path, digest: str) -> Path:
    return store / f"{digest}.safetensors"
