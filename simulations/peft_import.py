"""PEFT adapters as patches: a LoRA folder read back, whatever wrote it.

PEFT scales every site by ``lora_alpha / r``, both of which patterns may set site by site, or by
``lora_alpha / sqrt(r)`` (rsLoRA, arXiv:2312.03732). A patch has one alpha, so what differs from
that goes into B. Ties do not come back: PEFT knows none (`fleettune.adapters.to_peft`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.numpy import (
    load_file,  # pyright: ignore[reportUnknownVariableType] - a path of any kind of text
)

from fleettune.adapters import Patch, from_arrays, peft_name
from fleettune.backbone import read_shapes
from fleettune.factors import Array, Factors
from fleettune.sites import Site, parse_site
from fleettune.work import Shapes
from simulations.patches import KeptPatch

_KEY = re.compile(
    r"base_model\.model\.model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)_proj\.lora_([AB])\.weight"
)
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
}
"""What an adapter may say besides ranks and alphas, so that its factors are all of it."""


def import_peft(adapter: Path, release: int, base: str | None = None) -> KeptPatch:
    """Returns the patch of a PEFT LoRA folder.

    Args:
        adapter: Folder of ``adapter_config.json`` and ``adapter_model.safetensors``.
        release: Version of the release that it is for.
        base: Folder of that release; the one that the adapter names by default.

    Raises:
        ValueError: If it is not a LoRA of the seven matrices of that release's layers alone.
        OSError: If a file is missing.
    """
    config = cast(dict[str, Any], json.loads((adapter / "adapter_config.json").read_text()))
    for name, allowed in _PLAIN.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ValueError(f"{name} of {adapter} must be {allowed[0]!r}, got {config[name]!r}")
    folder = base or str(config.get("base_model_name_or_path"))
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"--base must name the folder of a model, got {folder}")
    arrays = _arrays(load_file(adapter / "adapter_model.safetensors"), adapter)
    plain = from_arrays(arrays, release, float(config["lora_alpha"]))
    _check(plain, read_shapes(Path(folder)))
    factors = {
        site: Factors(a=item.a, b=_rescaled(item.b, _scale(site, len(item.a), config), plain, site))
        for site, item in plain.factors.items()
    }
    patch = Patch(release=release, alpha=plain.alpha, factors=factors)
    return KeptPatch(patch=patch, base=folder)


def _arrays(named: Mapping[str, Array], adapter: Path) -> dict[str, Array]:
    """Returns PEFT's factors under our names, in single precision."""
    found: dict[str, Array] = {}
    for key, array in named.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"{adapter} must hold LoRA factors of layers' matrices, got {key}")
        layer, module, side = match.groups()
        found[f"{parse_site(f'{layer}.{module}')}.{side.lower()}"] = array.astype(np.float32)
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


def _scale(site: Site, rank: int, config: Mapping[str, Any]) -> float:
    """Returns what PEFT multiplies a site's product by."""
    from peft.utils.other import get_pattern_key  # noqa: PLC0415 - seconds of import

    patterns = cast(dict[str, float], config.get("alpha_pattern") or {})
    key = get_pattern_key(list(patterns), peft_name(site))
    alpha = float(patterns[key] if key in patterns else config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _rescaled(b: Array, scale: float, plain: Patch, site: Site) -> Array:
    if scale == plain.scale(site):
        return b
    return (b.astype(np.float64) * (scale / plain.scale(site))).astype(np.float32)
