"""Says which files decide a run beside its settings, and which of them are others by now.

A run's folder holds ``inputs.json``: the SHA-256 of every file that its settings name, and of the
modules of the user's own policies. Our own files are in `simulations.checkpoint.versions`, and all
other settings in the run's configuration.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import cast

from fleettune.backbone.causal_lm import BUILT_IN_MODELS, resolve_folder
from fleettune.records import read_json
from fleettune.releases.model_files import file_digest

INPUTS = "inputs.json"

_KEYS = ("path", "corpus", "profiles", "lexicon", "questions")
"""Keys of a configuration whose value may be a file or a folder that a run reads."""
_MODELS = ("model", "release")
"""Sections in which ``path`` is a model: a folder or a hub id."""
_READ = ("*.json", "*.safetensors", "*.yaml")
"""What is read of a folder: models, adapters, hardware profiles."""
_WINGS = ("fleettune", "clients", "strategies", "simulations", "conf")
_OURS = (*(Path(str(files(wing))).resolve() for wing in _WINGS), Path(os.__file__).resolve().parent)
_PACKAGES = frozenset({"site-packages", "dist-packages"})


def is_users_code(file: Path) -> bool:
    """Returns whether a Python file is neither ours, Python's own nor an installed package's."""
    place = file.resolve()
    known = any(place.is_relative_to(ours) for ours in _OURS)
    return place.suffix == ".py" and not known and not set(place.parts) & _PACKAGES


def write_inputs(folder: Path, settings: Iterable[object], installed: Iterable[str]) -> None:
    """Writes the digests of a run's inputs into its folder.

    Args:
        folder: The run's folder.
        settings: Its configurations as plain values, one for each part of a study.
        installed: Dotted paths of the classes of the user's policies, which are imported.

    Raises:
        ValueError: If a model is neither a folder nor to be had from the hub.
    """
    found = {
        "files": _digest_files(settings),
        "modules": _digest_modules(_list_modules(installed)),
    }
    (folder / INPUTS).write_text(json.dumps(found, indent=1))


def find_changed(folder: Path, settings: Iterable[object]) -> tuple[list[str], list[str]]:
    """Returns phrases for the inputs of a run that are others now, and for those that came or went.

    Args:
        folder: The run's folder.
        settings: What it is to be resumed with, as plain values.

    Raises:
        ValueError: If its digests cannot be read, or a model cannot be had any more.
    """
    try:
        read: dict[str, dict[str, str]] = read_json((folder / INPUTS).read_bytes(), INPUTS)
        before, modules = dict(read["files"]), dict(read["modules"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} cannot be resumed: its {INPUTS} is missing or damaged; start the run anew "
            "in another folder"
        ) from error
    now = _digest_files(settings)
    others = [name for name in before if name in now and before[name] != now[name]]
    # a module that is not found is told by whoever imports it
    loaded = _digest_modules(modules)
    others += [f"module {name}" for name in loaded if loaded[name] != modules[name]]
    changed = [f"{name} is not what it was when the run began" for name in others]
    moved = [f"{name} was no input of the run" for name in now if name not in before]
    return changed, [f"{name} is missing" for name in before if name not in now] + moved


def _digest_files(settings: Iterable[object]) -> dict[str, str]:
    """Returns the SHA-256 of every file that settings name, by its name there."""
    places = sorted({place for part in settings for place in _places(part, is_model=False)})
    named: dict[str, Path] = {}
    for name, is_model in places:
        where = resolve_folder(name) if is_model else Path(name)
        if where.is_file():
            named[name] = where
        elif where.is_dir():
            inside = sorted(file for kind in _READ for file in where.glob(kind))
            named |= {f"{name}/{file.name}": file for file in inside}
    return {name: file_digest(file) for name, file in named.items()}


def _places(node: object, *, is_model: bool) -> Iterator[tuple[str, bool]]:
    """Yields what may name a file or folder, with whether it is a model that is not built in."""
    if isinstance(node, list):
        for part in cast(list[object], node):
            yield from _places(part, is_model=is_model)
    elif isinstance(node, dict):
        for key, part in cast(dict[str, object], node).items():
            if key in _KEYS and isinstance(part, str):
                model = is_model and key == "path"
                if part and not (model and part in BUILT_IN_MODELS):
                    yield part, model
            else:
                yield from _places(part, is_model=is_model or key in _MODELS)


def _list_modules(installed: Iterable[str]) -> list[str]:
    """Returns the modules of policies and all others of the user's that are loaded."""
    own = {path.rpartition(".")[0] for path in installed}
    modules = dict(sys.modules).items() if own else ()
    places = {name: cast(str | None, getattr(one, "__file__", None)) for name, one in modules}
    beside = {name for name, file in places.items() if file and is_users_code(Path(file))}
    return sorted(own | beside - {"__main__"})


def _digest_modules(names: Iterable[str]) -> dict[str, str]:
    """Returns the SHA-256 of modules by name, of those that are found."""
    found: dict[str, str] = {}
    for name in names:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):  # it is no module that can be found
            continue
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            found[name] = file_digest(Path(spec.origin))
    return found
