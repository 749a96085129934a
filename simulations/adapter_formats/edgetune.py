"""Writes a patch in the three parts in which EdgeTune's released GradCut keeps one.

As published there are ``shared_lora`` (one pair per module type), ``layer_lora_info`` (by site u, v
and type) and ``dedicated_loras``, all pickled. Here the arrays are safetensors under the same
three names, and what is no array stands in ``layer_lora_info.json``: nothing is pickled. A
dedicated site gets u and v of ones, which is what ours amount to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import (
    save_file,  # pyright: ignore[reportUnknownVariableType] - a path of any kind of text
)

from fleettune.adapters.factors import Array
from fleettune.adapters.patch import Patch
from fleettune.shapes import Site, order
from simulations.adapter_formats.peft import KeptPatch

SHARED, DEDICATED = "shared", "dedicated"


def export_edgetune(kept: KeptPatch, into: Path) -> None:
    """Writes a patch as three safetensors files and one of JSON.

    Raises:
        ValueError: If the folder holds one already, or a module type has two shared pairs, for
            which the format has no place.
    """
    index = into / "layer_lora_info.json"
    if index.exists():
        raise ValueError(f"--into must name a folder without {index.name}, got {into}")
    patch = kept.patch
    modules = [next(iter(tied.vectors)).module for tied in patch.ties]
    if len(set(modules)) < len(modules):
        raise ValueError(
            "the published format has one shared pair per module type; this patch has "
            f"{modules}: use --format peft"
        )
    into.mkdir(parents=True, exist_ok=True)
    for name, arrays in _parts(patch, modules).items():
        save_file(dict(arrays), into / f"{name}.safetensors")
    types = dict.fromkeys(patch.factors, DEDICATED)
    types |= {site: SHARED for tied in patch.ties for site in tied.vectors}
    alphas = {module: tied.alpha for module, tied in zip(modules, patch.ties, strict=True)}
    plain = {
        "types": {str(site): types[site] for site in sorted(types, key=order)},
        "alphas": {**alphas, DEDICATED: patch.alpha},
        "release": patch.release,
        "base": kept.base,
    }
    index.write_text(json.dumps(plain, indent=1))


def _parts(patch: Patch, modules: list[str]) -> Mapping[str, Mapping[str, Array]]:
    """Returns the arrays of the three files.

    They are ``q.A`` ``(rank, n_in)`` and ``q.B`` ``(n_out, rank)`` by module type, ``3.q.u``
    ``(rank,)`` and ``3.q.v`` ``(n_out,)`` by site, and ``3.q.A`` and ``3.q.B`` by dedicated site.
    """
    shared: dict[str, Array] = {}
    vectors: dict[Site, tuple[Array, Array]] = {}
    own: dict[str, Array] = {}
    for module, tied in zip(modules, patch.ties, strict=True):
        shared |= {f"{module}.A": tied.pair.a, f"{module}.B": tied.pair.b}
        vectors |= tied.vectors
    for site, item in patch.factors.items():
        own |= {f"{site}.A": item.a, f"{site}.B": item.b}
        n_out, rank = item.b.shape
        vectors[site] = (np.ones(rank, np.float32), np.ones(n_out, np.float32))
    info = {f"{site}.u": u for site, (u, _) in vectors.items()}
    info |= {f"{site}.v": v for site, (_, v) in vectors.items()}
    return {"shared_lora": shared, "layer_lora_info": info, "dedicated_loras": own}
