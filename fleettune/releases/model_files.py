"""A model's folder as files: what decides its results, their digest, and its weights by name.

Weights stand in one safetensors file or in shards with an index. Some families store q, k and v, or
gate and up, as one matrix; here every site has its own part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fleettune.adapters.patch import peft_name
from fleettune.backbone.causal_lm import read_shapes
from fleettune.backbone.model_family import FUSED, fused_widths
from fleettune.records import read_object
from fleettune.shapes import MODULES, Site

INDEX = "model.safetensors.index.json"
"""Which shard holds which tensor."""
DECIDING = ("config.json", "tokenizer.json")
"""Files beside the weights that decide what a model computes here."""
_PICKLED = ("*.bin", "*.pt", "*.pth")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Returns the safetensors files of a model's folder: one, or the shards that its index names.

    Raises:
        ValueError: If there is none, if a shard is missing, or if there are several and no index.
    """
    index = folder / INDEX
    if index.is_file():
        shards = _shards(index)
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing or not shards:
            raise ValueError(
                f"model folder {folder} lacks {missing[0] if missing else 'every shard'}, which "
                f"{INDEX} names; copy the whole folder"
            )
        return tuple(folder / name for name in shards)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        raise ValueError(
            f"model folder {folder} holds {len(files)} safetensors files and no {INDEX}, which "
            "says what stands in which; copy the whole folder"
        )
    if not files:
        pickled = sorted(file.name for kind in _PICKLED for file in folder.glob(kind))
        raise ValueError(
            f"model folder {folder} holds no safetensors file"
            + (f", only {pickled[0]}, which is a pickle and is not read" if pickled else "")
            + "; save the model with save_pretrained of transformers"
        )
    return (files[0],)


def _shards(index: Path) -> list[str]:
    """Returns the files that an index names, which all lie beside it."""
    told = _read_json(index).get("weight_map")
    named = cast(dict[str, object], told if isinstance(told, dict) else {}).values()
    shards = {name for name in named if isinstance(name, str)}
    odd: list[object] = [name for name in named if not isinstance(name, str)]
    odd += [name for name in shards if len(name) > 200 or name != Path(name).name]
    if odd:
        raise ValueError(
            f"{index} must name files beside it, got {str(odd[0])[:80]!r}; copy the whole folder"
        )
    return sorted(shards)


def weights_bytes(folder: Path) -> int:
    """Returns the bytes of a model's weights files."""
    return sum(file.stat().st_size for file in weight_files(folder))


def file_digest(file: Path) -> str:
    """Returns the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digests(folder: Path) -> Mapping[str, str]:
    """Returns the SHA-256 of every file that decides what a model computes, by its name."""
    beside = [folder / name for name in DECIDING if (folder / name).is_file()]
    return {file.name: file_digest(file) for file in sorted((*beside, *weight_files(folder)))}


def folder_digest(folder: Path) -> str:
    """Returns one SHA-256 of all files that decide what a model computes, names included."""
    lines = "".join(f"{name} {digest}\n" for name, digest in file_digests(folder).items())
    return hashlib.sha256(lines.encode()).hexdigest()


class OpenWeights:
    """The tensors of all files of a folder, by name; only what is asked for is read."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self._files = files

    def keys(self) -> Iterable[str]:
        """Returns the names of all tensors."""
        return self._files.keys()

    def get_tensor(self, name: str) -> Tensor:
        """Returns a tensor.

        Raises:
            ValueError: If there is none of that name.
        """
        if name not in self._files:
            raise ValueError(f"the model's weights hold no {name}")
        return self._files[name].get_tensor(name)

    def shape(self, name: str) -> list[int]:
        """Returns a tensor's shape without reading it."""
        return self._files[name].get_slice(name).get_shape()


@contextmanager
def open_weights(folder: Path) -> Generator[OpenWeights]:
    """Opens a model's weights, to be read one by one within a ``with`` statement.

    Raises:
        ValueError: If a file is missing or damaged.
    """
    with ExitStack() as opened:
        files: dict[str, Any] = {}
        for file in weight_files(folder):
            try:
                tensors: Any = safe_open(file, framework="pt")  # safetensors has no types
                held = opened.enter_context(tensors)
            except (SafetensorError, OSError) as error:
                raise ValueError(
                    f"weights file {file} cannot be read ({error}); copy or make it anew"
                ) from error
            files |= dict.fromkeys(held.keys(), held)
        yield OpenWeights(files)


def site_weights(folder: Path, layers: int) -> Iterable[tuple[Site, NDArray[np.float32]]]:
    """Returns every site's weight, ``(n_out, n_in)``, one at a time."""
    return weights_at(folder, (Site(layer, m) for layer in range(layers) for m in MODULES))


def weights_at(folder: Path, sites: Iterable[Site]) -> Iterator[tuple[Site, NDArray[np.float32]]]:
    """Yields the weights of some sites, ``(n_out, n_in)``, in the order given."""
    with open_weights(folder) as tensors:
        names = frozenset(tensors.keys())
        for site in sites:
            name = f"{peft_name(site)}.weight"
            if name in names:
                yield site, tensors.get_tensor(name).float().numpy()
            else:
                yield site, _part(tensors, site, folder)


def _part(tensors: OpenWeights, site: Site, folder: Path) -> NDArray[np.float32]:
    """Returns a site's rows of a fused matrix."""
    own = f"{site.module}_proj"
    for parent, (fused, parts) in FUSED.items():
        if own in parts:
            widths, place = fused_widths(read_shapes(folder))[fused], parts.index(own)
            name = f"model.layers.{site.layer}.{parent}.{fused}.weight"
            first = sum(widths[:place])
            whole = tensors.get_tensor(name)
            return whole[first : first + widths[place]].float().numpy()
    raise ValueError(f"the model's weights hold no {peft_name(site)}.weight")


def _read_json(file: Path) -> dict[str, Any]:
    return read_object(file.read_bytes(), str(file))
