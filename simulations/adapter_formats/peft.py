"""Saves the patches that a finished run keeps, and reads and writes them in PEFT's format.

A run's device states are deleted with its checkpoint. The last patch of its first devices stays,
one safetensors file per arm and device: factors as they were trained (a tied pair once), and in the
header what they belong to. No file holds a user's text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from safetensors.numpy import save

from clients.state.state import read_state
from fleettune.adapters.patch import Patch, peft_name, to_arrays, to_peft
from fleettune.adapters.patch_files import peft_config_of, read_patch_header, read_peft
from fleettune.adapters.tensor_bytes import read_tensors
from fleettune.backbone.causal_lm import BUILT_IN_MODELS, MODELS_FOLDER, load_backbone, read_shapes
from fleettune.backbone.model_family import fuse_split
from fleettune.deltas.frames import read_frame
from fleettune.records import read_json
from fleettune.whole_files import write_whole
from simulations.checkpoint.store import DeviceStates
from strategies.app import FLEET, FLEET_BASES
from strategies.releases.merged_fleet import fold

PATCHES = "patches"
"""Folder of a run that holds the patches kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPatch:
    """A device's last patch.

    Attributes:
        patch: The patch.
        base: Folder of the release that the device serves it with.
    """

    patch: Patch
    base: str


def save_patches(states: DeviceStates, arms: Iterable[str], devices: int, folder: Path) -> int:
    """Writes the patches of the first devices and returns how many of them held one.

    Args:
        states: Where the devices' states are.
        arms: Names of all arms.
        devices: How many devices, from number 0 on.
        folder: The run's folder.
    """
    kept = 0
    for arm in arms:
        for device in range(devices):
            holder = (arm, device + 1)
            state = read_state(states.load([holder])[holder], arm)
            if state.patch is None or state.held is None:
                continue
            save_patch(KeptPatch(patch=state.patch, base=state.held.path), arm, device, folder)
            kept += 1
    return kept


def save_patch(kept: KeptPatch, arm: str, device: int, folder: Path) -> Path:
    """Writes a patch where `read_patch` finds it, and returns the file."""
    file = _file(folder, arm, device)
    told = {"alpha": kept.patch.alpha, "release": kept.patch.release, "base": kept.base}
    write_whole(file, save(to_arrays(kept.patch), metadata={"fleettune": json.dumps(told)}))
    return file


def read_patch(folder: Path, device: int, arm: str | None) -> KeptPatch:
    """Returns a patch that a run kept.

    Raises:
        ValueError: If the run kept none of this device, or several arms did and none is named.
    """
    held = {file.parent.name: file for file in folder.glob(f"{PATCHES}/*/{device}.safetensors")}
    if not held:
        raise ValueError(
            f"{folder} must hold a patch of device {device} in {PATCHES}/, got none: a run keeps "
            "those of its first keep_patches devices, where they ever tuned"
        )
    if arm is None and len(held) > 1:
        raise ValueError(f"--arm must be one of {', '.join(sorted(held))}: all of them hold one")
    chosen = next(iter(held)) if arm is None else arm
    if chosen not in held:
        raise ValueError(f"--arm must be one of {', '.join(sorted(held))}, got {chosen!r}")
    texts, arrays = read_tensors(held[chosen].read_bytes(), str(held[chosen]))
    header = read_patch_header(texts)
    return KeptPatch(patch=header.patch(arrays), base=header.base)


def read_fleet_patch(folder: Path, arm: str | None) -> KeptPatch:
    """Returns the fleet patch of an arm at the end of a run, with the release that it is for.

    Raises:
        ValueError: If the run kept none, or several arms have one and none is named.
    """
    held = {file.stem.removeprefix(FLEET): file for file in folder.glob(f"{FLEET}*.safetensors")}
    if not held:
        raise ValueError(
            f"{folder} must hold a fleet patch, got none: a run makes one with fleet_patch=start"
        )
    if arm is None and len(held) > 1:
        raise ValueError(f"--arm must be one of {', '.join(sorted(held))}: all of them have one")
    chosen = next(iter(held)) if arm is None else arm
    if chosen not in held:
        raise ValueError(f"--arm must be one of {', '.join(sorted(held))}, got {chosen!r}")
    patch = read_frame(held[chosen].read_bytes())
    bases: object = read_json((folder / FLEET_BASES).read_bytes(), str(folder / FLEET_BASES))
    base = cast(dict[str, object], bases).get(chosen) if isinstance(bases, dict) else None
    if not isinstance(base, str):
        raise ValueError(f"{folder / FLEET_BASES} must name the release of {chosen}, got {base!r}")
    return KeptPatch(patch=patch, base=base)


def export_peft(kept: KeptPatch, into: Path) -> None:
    """Writes a folder that ``peft.PeftModel.from_pretrained`` loads onto the release.

    Raises:
        ValueError: If the folder holds an adapter already.
    """
    config = into / "adapter_config.json"
    if config.exists():
        raise ValueError(f"--into must name a folder without {config.name}, got {into}")
    weights = save(to_peft(kept.patch), metadata={"format": "pt"})
    write_whole(into / "adapter_model.safetensors", weights)
    config.write_text(json.dumps(peft_config(kept), indent=1, sort_keys=True))


_README = """\
# A patch of fleettune as a PEFT adapter

In this folder:

    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained({base!r})
    model = PeftModel.from_pretrained(base, ".")
    tokenizer = AutoTokenizer.from_pretrained(".")

The base is the release that the patch was trained on. {moved}
"""
_STAYS = "It lies outside this folder; `fleettune export --with-base` copies it as well."
_MOVES = "It lies in this folder, which can be moved."

_MERGED = """\
# A release of fleettune with a patch in its weights

In this folder:

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(".")
    tokenizer = AutoTokenizer.from_pretrained(".")

Weights are in single precision: half precision would round small updates away.
"""


def export_with_base(kept: KeptPatch, into: Path, *, with_base: bool) -> None:
    """Writes a folder that PEFT loads from any working folder, with tokenizer and a README.

    Args:
        kept: The patch.
        into: The folder.
        with_base: Whether the release is copied into it; else the folder names where it lies.

    Raises:
        ValueError: If the folder holds an adapter already, or the release is gone.
    """
    base, own = _find_base(kept), into / "base"
    there = own.resolve() if with_base else base
    export_peft(replace(kept, base=str(there)), into)
    if with_base:
        shutil.copytree(base, own, dirs_exist_ok=True)
    _copy_tokenizer(base, into)
    named, moved = ("base", _MOVES) if with_base else (str(base), _STAYS)
    told = _README.format(base=named, moved=moved)
    write_whole(into / "README.md", told.encode())


def export_merged(kept: KeptPatch, into: Path) -> None:
    """Writes the release with the patch in its weights, as a folder that transformers loads.

    Raises:
        ValueError: If the folder holds a model already, or the release is gone.
    """
    base = _find_base(kept)
    if (into / "config.json").exists():
        raise ValueError(f"--into must name a folder without config.json, got {into}")
    model = load_backbone(base).model
    fold(model, kept.patch)
    fuse_split(model)
    model.save_pretrained(into)
    _copy_tokenizer(base, into)
    write_whole(into / "README.md", _MERGED.encode())


def _find_base(kept: KeptPatch) -> Path:
    base = Path(kept.base).resolve()
    if not (base / "config.json").is_file():
        raise ValueError(
            f"the release of this patch must lie in {base}, which holds no config.json; export "
            "from the folder in which the run was started, before make clean empties the store"
        )
    return base


def _copy_tokenizer(base: Path, into: Path) -> None:
    for file in base.glob("*token*"):
        shutil.copy(file, into / file.name)


def peft_config(kept: KeptPatch) -> Mapping[str, Any]:
    """Returns PEFT's description of a patch: every site by its full name, with its own rank."""
    from peft import LoraConfig  # noqa: PLC0415 - seconds of import

    ranks = {peft_name(site): rank for site, rank in kept.patch.ranks.items()}
    config = LoraConfig(
        base_model_name_or_path=kept.base,
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=max(ranks.values()),
        rank_pattern=ranks,
        lora_alpha=cast(int, kept.patch.alpha),
        lora_dropout=0.0,
        bias="none",
        target_modules=list(ranks),
    )
    plain = cast(Mapping[str, Any], config.to_dict())
    # sets have no order of their own
    return {
        key: sorted(cast(set[str], value)) if isinstance(value, set) else value
        for key, value in plain.items()
    }


def import_peft(adapter: Path, release: int, base: str | None = None) -> KeptPatch:
    """Returns the patch of a PEFT LoRA folder, whatever wrote it.

    Args:
        adapter: The folder.
        release: Version of the release that it is for.
        base: Folder of that release, or the word for the built-in model; the one that the adapter
            names by default.

    Raises:
        ValueError: If there is no such release, or `fleettune.adapters.patch_files.read_peft`
            refuses it.
    """
    named = peft_config_of(adapter).base
    folder = str(MODELS_FOLDER / base) if base in BUILT_IN_MODELS else base or named
    if not (Path(folder) / "config.json").is_file():
        said = f"got {base}" if base else f"and {named}, which the adapter names, is not here"
        raise ValueError(f"--base must name the folder of a model (pocket: the built-in), {said}")
    patch = read_peft(adapter, release, read_shapes(Path(folder)))
    return KeptPatch(patch=patch, base=folder)


def _file(folder: Path, arm: str, device: int) -> Path:
    return folder / PATCHES / arm / f"{device}.safetensors"
