"""External releases: checkpoints that somebody else made, one folder per release.

Patches and tokens must mean the same on them, so shapes and tokenizer are those of the model that
everything starts from. The folder is used where it lies; its digest stands in the manifest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fleettune.backbone.causal_lm import read_shapes, resolve_folder
from fleettune.releases.manifest import weights_file
from strategies.releases.schedule import ReleasePlan, Schedule

_TOKENIZER = ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor")
"""Parts of ``tokenizer.json`` that decide which tokens a text becomes."""


def external_folder(plan: ReleasePlan, source: Path) -> Path:
    """Returns the folder of an external release.

    Args:
        plan: Its plan, of kind ``external``.
        source: Folder of a model of the right shapes and tokenizer.

    Raises:
        ValueError: If it is neither a folder nor to be had from the hub, if it does not hold one
            safetensors file, or if it is another kind of model.
    """
    try:
        folder = resolve_folder(plan.path)
        weights_file(folder)
        own, other = read_shapes(source), read_shapes(folder)
    except ValueError as error:
        told = str(error).replace("model.path", "path")
        raise ValueError(f"release {plan.name}: {told}") from error
    if own != other:
        raise ValueError(
            f"release {plan.name}: the model in {folder} must have the shapes of {source}, "
            f"{own}, got {other}"
        )
    if _tokenizer(folder) != _tokenizer(source):
        raise ValueError(
            f"release {plan.name}: the model in {folder} must have the tokenizer of {source}"
        )
    return folder


def check_external(schedule: Schedule, source: Path) -> None:
    """Raises ValueError if an external release of a schedule cannot follow `source`."""
    for plan in (schedule.initial, *schedule.plans):
        if plan is not None and plan.kind == "external":
            external_folder(plan, source)


def _tokenizer(folder: Path) -> dict[str, Any] | None:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    read = json.loads(file.read_text(encoding="utf-8"))
    return {part: read.get(part) for part in _TOKENIZER}
