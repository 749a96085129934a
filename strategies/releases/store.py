"""The release store: one folder per release, named by everything that decides its weights.

A folder appears when its release is finished, with a record of the digests of its files. Whoever
finds it compares them, so a changed or damaged file never gives other results without a word.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fleettune.backbone.model_family import fuse_split
from fleettune.records import read_json
from fleettune.releases.model_files import file_digests, folder_digest
from fleettune.whole_files import make_folder

RECORD = "release.json"
"""What a finished release's folder holds beside the model."""


def find_release(folder: Path) -> Mapping[str, Any] | None:
    """Returns the record of a finished release; None where there is none.

    Raises:
        ValueError: If the folder is not what its record says, naming the file.
    """
    if not folder.exists():
        return None
    try:
        held: dict[str, Any] = read_json((folder / RECORD).read_bytes(), RECORD)
        record: dict[str, Any] = held["record"]
        if held["sha256"] != _record_digest(record):
            raise ValueError("it must have the digest that it says")
        wanted: dict[str, str] = dict(record["files"])
        names = [name for name in wanted if not (folder / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"release cache {folder} is damaged: {RECORD} is missing or not what was written "
            f"({type(error).__name__}); delete that folder, and the release is made anew"
        ) from error
    if not names:
        found = file_digests(folder)
        names = [name for name in wanted if found.get(name) != wanted[name]]
        names += sorted(set(found) - set(wanted))
    if names:
        raise ValueError(
            f"release cache {folder} is damaged: {names[0]} is not what was written there; "
            "delete that folder, and the release is made anew"
        )
    return record


def make_release(folder: Path, make: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the record of a release, made where it is not in the store yet.

    Args:
        folder: Where it stands in the store.
        make: Writes the model into a folder and returns what the record is to say beside digests.

    Raises:
        ValueError: If the folder is not what its record says.
    """
    found = find_release(folder)
    if found is not None:
        return found
    with make_folder(folder) as partial:
        told = make(partial)
        record = {
            **told,
            "digest": folder_digest(partial),
            "files": dict(file_digests(partial)),
        }
        held = {"sha256": _record_digest(record), "record": record}
        (partial / RECORD).write_text(json.dumps(held), encoding="utf-8")
    return record


def _record_digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def write_model(model: Any, parent: Path, folder: Path) -> None:  # noqa: ANN401 - a transformers model
    """Writes a model as a vendor ships it: weights in half precision, the parent's tokenizer.

    Raises:
        OSError: If it cannot be written.
    """
    fuse_split(model)
    try:
        model.to(torch.float16).save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(f"{folder}: {error}") from error
    for file in parent.glob("*token*"):
        shutil.copy(file, folder / file.name)
