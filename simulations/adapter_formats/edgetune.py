"""Published: a patch in the three parts in which EdgeTune's GradCut keeps one, and back.

As published there are ``shared_lora`` (one pair per module type), ``layer_lora_info`` (by site u, v
and type) and ``dedicated_loras``, all pickled. Here the arrays are safetensors under the same
three names and what is no array stands in ``layer_lora_info.json``, so nothing is ever unpickled.
Dedicated sites have u and v of ones, which is what ours amount to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import (
    load_file,  # pyright: ignore[reportUnknownVariableType] - its stub has a bare PathLike
    save_file,  # pyright: ignore[reportUnknownVariableType] - a path of any kind of text
)

from fleettune.adapters.factors import Array, Factors, Tied
from fleettune.adapters.patch import Patch
from fleettune.shapes import Site, order, parse_site
from simulations.adapter_formats.peft import KeptPatch

SHARED, DEDICATED = "shared", "dedicated"
PARTS = ("shared_lora", "layer_lora_info", "dedicated_loras")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Published:
    """A patch in three parts, and what is no array.

    Attributes:
        shared_lora: ``q.A`` ``(rank, n_in)`` and ``q.B`` ``(n_out, rank)`` by module type.
        layer_lora_info: ``3.q.u`` ``(rank,)`` and ``3.q.v`` ``(n_out,)`` by site.
        dedicated_loras: ``3.q.A`` and ``3.q.B`` by site.
        types: ``shared`` or ``dedicated`` by site.
        alphas: Alpha of every module type's pair, and under ``dedicated`` that of the others.
        release: Version of the release that it belongs to.
    """

    shared_lora: Mapping[str, Array]
    layer_lora_info: Mapping[str, Array]
    dedicated_loras: Mapping[str, Array]
    types: Mapping[str, str]
    alphas: Mapping[str, float]
    release: int


def to_published(patch: Patch) -> Published:
    """Returns a patch in the published parts.

    Raises:
        ValueError: If a module type has two shared pairs, for which they have no place.
    """
    modules = [_module(tied) for tied in patch.ties]
    if len(set(modules)) < len(modules):
        raise ValueError(
            "the published format has one shared pair per module type; this patch has "
            f"{modules}: use --format peft"
        )
    shared: dict[str, Array] = {}
    info: dict[str, Array] = {}
    own: dict[str, Array] = {}
    types: dict[Site, str] = {}
    for module, tied in zip(modules, patch.ties, strict=True):
        shared |= {f"{module}.A": tied.pair.a, f"{module}.B": tied.pair.b}
        for site, (u, v) in tied.vectors.items():
            info |= {f"{site}.u": u, f"{site}.v": v}
            types[site] = SHARED
    for site, item in patch.factors.items():
        own |= {f"{site}.A": item.a, f"{site}.B": item.b}
        n_out, rank = item.b.shape
        info |= {f"{site}.u": np.ones(rank, np.float32), f"{site}.v": np.ones(n_out, np.float32)}
        types[site] = DEDICATED
    alphas = {module: tied.alpha for module, tied in zip(modules, patch.ties, strict=True)}
    return Published(
        shared_lora=shared,
        layer_lora_info=info,
        dedicated_loras=own,
        types={str(site): types[site] for site in sorted(types, key=order)},
        alphas={**alphas, DEDICATED: patch.alpha},
        release=patch.release,
    )


def from_published(parts: Published) -> Patch:
    """Returns the patch of published parts; u and v of dedicated sites become part of their B.

    Raises:
        ValueError: If a part lacks an array, or a type is none of the two.
    """
    unknown = sorted(set(parts.types.values()) - {SHARED, DEDICATED})
    if unknown:
        raise ValueError(f"a site's type must be {SHARED} or {DEDICATED}, got {unknown}")
    sites = {parse_site(name): kind for name, kind in parts.types.items()}
    try:
        factors = {s: _dedicated(parts, s) for s, kind in sites.items() if kind == DEDICATED}
        shared = [site for site, kind in sites.items() if kind == SHARED]
        modules = dict.fromkeys(site.module for site in shared)
        ties = tuple(_tied(parts, module, shared) for module in modules)
        alpha = parts.alphas[DEDICATED]
    except KeyError as error:
        raise ValueError(f"a published patch must hold {error.args[0]}") from error
    return Patch(release=parts.release, alpha=alpha, factors=factors, ties=ties)


def export_published(kept: KeptPatch, into: Path) -> None:
    """Writes a patch as three safetensors files and one of JSON.

    Raises:
        ValueError: If the folder holds one already, or the format has no place for the patch.
    """
    told = into / "layer_lora_info.json"
    if told.exists():
        raise ValueError(f"--into must name a folder without {told.name}, got {into}")
    parts = to_published(kept.patch)
    into.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        save_file(dict(getattr(parts, name)), into / f"{name}.safetensors")
    plain: dict[str, Any] = {"types": parts.types, "alphas": parts.alphas}
    plain |= {"release": parts.release, "base": kept.base}
    told.write_text(json.dumps(plain, indent=1))


def read_published(folder: Path) -> KeptPatch:
    """Returns the patch that `export_published` wrote."""
    plain = json.loads((folder / "layer_lora_info.json").read_text())
    shared, info, own = (load_file(folder / f"{name}.safetensors") for name in PARTS)
    parts = Published(
        shared_lora=shared,
        layer_lora_info=info,
        dedicated_loras=own,
        types=plain["types"],
        alphas=plain["alphas"],
        release=plain["release"],
    )
    return KeptPatch(patch=from_published(parts), base=plain["base"])


def _module(tied: Tied) -> str:
    return next(iter(tied.vectors)).module


def _dedicated(parts: Published, site: Site) -> Factors:
    u, v = (parts.layer_lora_info[f"{site}.{side}"] for side in "uv")
    b = v[:, None] * parts.dedicated_loras[f"{site}.B"] * u
    return Factors(a=parts.dedicated_loras[f"{site}.A"], b=b)


def _tied(parts: Published, module: str, shared: list[Site]) -> Tied:
    info = parts.layer_lora_info
    return Tied(
        pair=Factors(a=parts.shared_lora[f"{module}.A"], b=parts.shared_lora[f"{module}.B"]),
        alpha=parts.alphas[module],
        vectors={s: (info[f"{s}.u"], info[f"{s}.v"]) for s in shared if s.module == module},
    )
