"""Patches as bytes, as files of a store, and read from PEFT's LoRA folders.

A patch's own form is safetensors: its factors under stable names, and in the header its alpha and
release. A store names each file by the digest of what the patch computes.

PEFT scales every site by ``lora_alpha / r``, both of which patterns may set site by site, or by
``lora_alpha / sqrt(r)`` (rsLoRA, arXiv:2312.03732). A patch has one alpha, so what differs from
that goes into B. Ties do not come back: PEFT knows none (`fleettune.adapters.patch.to_peft`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import (
    load_file,  # pyright: ignore[reportUnknownVariableType] - a path of any kind of text
)

from fleettune.adapters.factors import Array, Factors
from fleettune.adapters.patch import Patch, from_arrays, to_arrays
from fleettune.adapters.peft_config import CONFIG, PeftConfig, read_peft_config
from fleettune.adapters.tensor_bytes import read_tensors
from fleettune.records import build_value, read_object
from fleettune.shapes import Shapes, Site, parse_site
from fleettune.whole_files import write_whole

_KEY = re.compile(
    r"base_model\.model\.model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)_proj\.lora_([AB])\.weight"
)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WEIGHTS = "adapter_model.safetensors"
"""The files of an adapter; one whose weights are a pickle is not read."""


def patch_to_bytes(patch: Patch) -> bytes:
    """Returns a patch as safetensors, its release and alpha in the header."""
    header = json.dumps({"alpha": patch.alpha, "release": patch.release})
    return save(to_arrays(patch), metadata={"fleettune": header})


def patch_from_bytes(data: bytes) -> Patch:
    """Returns the patch that `patch_to_bytes` wrote.

    Raises:
        ValueError: If it is none.
    """
    header, arrays = read_tensors(data, "a patch")
    return read_patch_header(header).patch(arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchHeader:
    """What a patch's file says beside its factors.

    Attributes:
        alpha: LoRA's alpha.
        release: Version of the release.
        base: Folder of that release, where a run keeps its patches; empty elsewhere.
    """

    alpha: float
    release: int
    base: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be finite and > 0, got {self.alpha}")

    def patch(self, arrays: Mapping[str, Array]) -> Patch:
        """Returns the patch of these arrays."""
        return from_arrays(arrays, self.release, self.alpha)


def read_patch_header(header: Mapping[str, str]) -> PatchHeader:
    """Returns what the header of a patch's file says.

    Raises:
        ValueError: If it says none of it, or anything else.
    """
    told = read_object(header.get("fleettune", ""), "the header of a patch")
    return build_value(PatchHeader, told, {}, "patch")


def keep_patch(store: Path, patch: Patch) -> str:
    """Writes a patch into a store that lacks it, or has it damaged; returns its digest."""
    digest, data = patch.digest(), patch_to_bytes(patch)
    file = _file(store, digest)
    if not file.is_file() or file.read_bytes() != data:
        write_whole(file, data)
    return digest


def holds_patch(store: Path, digest: str) -> bool:
    """Returns whether a store has a file for the patch of a digest."""
    return _file(store, digest).is_file()


def fetch_patch(store: Path, digest: str) -> Patch:
    """Returns the patch of a digest.

    Raises:
        ValueError: If the store holds none, or holds other bytes under that name.
    """
    file = _file(store, digest)
    if not file.is_file():
        raise ValueError(f"patch store {store} must hold the patch {digest}, does not")
    try:
        patch = patch_from_bytes(file.read_bytes())
        found = patch.digest()
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        found, patch = f"no patch at all ({type(error).__name__})", None
    if patch is None or found != digest:
        raise ValueError(
            f"patch {file} must have that digest, got {found}: it is damaged; delete it, and a "
            "new run makes it anew"
        )
    return patch


def _file(store: Path, digest: str) -> Path:
    return store / f"{digest}.safetensors"


def read_peft(adapter: Path, release: int, shapes: Shapes) -> Patch:
    """Returns the patch of a PEFT LoRA folder.

    Args:
        adapter: Folder of `CONFIG` and `WEIGHTS`.
        release: Version of the release that it is for.
        shapes: That release's.

    Raises:
        ValueError: If a file is missing or cannot be read, or if it is not a LoRA of the seven
            matrices of that release's layers alone.
    """
    config = peft_config_of(adapter)
    plain = from_arrays(_arrays(adapter), release, config.alpha or 1.0)
    _check(plain, shapes)
    factors = {
        site: Factors(a=item.a, b=_rescaled(item.b, config.scale(site, len(item.a)), plain, site))
        for site, item in plain.factors.items()
    }
    return Patch(release=release, alpha=plain.alpha, factors=factors)


def peft_config_of(adapter: Path) -> PeftConfig:
    """Returns what an adapter says of itself.

    Raises:
        ValueError: If the folder lacks one of the two files, or its description cannot be read.
    """
    for name in (CONFIG, WEIGHTS):
        if not (adapter / name).is_file():
            raise ValueError(
                f"{adapter} must hold {CONFIG} and {WEIGHTS}, lacks {name}: write it with PEFT's "
                "save_pretrained (no .bin) or with `fleettune export`"
            )
    return read_peft_config(adapter / CONFIG)


def _arrays(adapter: Path) -> dict[str, Array]:
    """Returns PEFT's factors under our names, in single precision."""
    try:
        named = load_file(adapter / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{adapter / WEIGHTS} must be safetensors, is not: {error}") from error
    found: dict[str, Array] = {}
    for key, tensor in named.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"{adapter} must hold LoRA factors of layers' matrices, got {key}")
        layer, module, side = match.groups()
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{adapter / WEIGHTS}: {key} must hold floats, holds {tensor.dtype}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{adapter / WEIGHTS}: {key} must hold finite numbers, holds NaN or infinity: the "
                "adapter's training diverged; use an earlier checkpoint of it"
            )
        # numpy knows no bf16, in which PEFT may have written
        found[f"{parse_site(f'{layer}.{module}')}.{side.lower()}"] = tensor.float().numpy()
    if not found:
        raise ValueError(f"{adapter} must hold LoRA factors, got none")
    return found


def _check(patch: Patch, shapes: Shapes) -> None:
    matrices = shapes.matrices()
    for site, item in patch.factors.items():
        rank, (n_in, n_out) = len(item.a), matrices[site.module]
        if site.layer >= shapes.layers:
            raise ValueError(f"{site} must be of a model of {shapes.layers} layers")
        if item.a.shape != (rank, n_in) or item.b.shape != (n_out, rank):
            raise ValueError(
                f"factors of {site} must fit a {n_out} x {n_in} matrix, "
                f"got {item.b.shape} and {item.a.shape}"
            )


def _rescaled(b: Array, scale: float, plain: Patch, site: Site) -> Array:
    if scale == plain.scale(site):
        return b
    return (b.astype(np.float64) * (scale / plain.scale(site))).astype(np.float32)
