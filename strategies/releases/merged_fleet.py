"""Merged releases: what the fleet learned goes into the weights of the next release.

The fleet patch's effective update is added to every matrix that it adapts, once, in single
precision, and shipped in half precision as every release is. From there the vendor may train on.

A patch that a device tuned before is relative to weights without that update. Reused, it adds what
the fleet and its user have in common a second time; tuned anew, it is relative to the new weights.
The patch less the fleet patch (`fleettune.adapters.updates.delta`) is the old function on the new
weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fleettune.adapters.patch import Patch, peft_name
from fleettune.adapters.updates import updates_of
from fleettune.backbone.causal_lm import load_backbone
from strategies.releases.store import make_release, write_model
from strategies.releases.training import RECIPE_VERSION, TrainedRelease, Vendor


def fold_release(parent: TrainedRelease, fleet: Patch, vendor: Vendor) -> TrainedRelease:
    """Returns a release with a fleet patch in its weights, made or found in the store.

    Raises:
        ValueError: If the patch adapts a matrix that is not there, or one of another shape.
    """
    parts = {"recipe": RECIPE_VERSION, "parent": parent.digest, "fleet": fleet.digest()}
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    folder = vendor.store / key

    def make(partial: Path) -> Mapping[str, Any]:
        model = load_backbone(parent.folder).model
        fold(model, fleet)
        write_model(model, parent.folder, partial)
        return parts

    digest: str = make_release(folder, make)["digest"]
    return TrainedRelease(folder=folder, digest=digest, loss_before=None, loss_after=None)


def fold(model: Any, fleet: Patch) -> None:  # noqa: ANN401 - a transformers model
    """Adds a patch's effective update to a model's weights, ``(n_out, n_in)``, in place.

    Raises:
        ValueError: If the patch adapts a matrix that is not there, or one of another shape.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for site, update in updates_of(fleet).items():
            parameter = parameters.get(f"{peft_name(site)}.weight")
            shape = update.left.shape[0], update.right.shape[1]
            there = None if parameter is None else tuple(parameter.shape)
            if parameter is None or there != shape:
                raise ValueError(f"the release must have {site} as {shape}, got {there}")
            whole = parameter.detach().double().numpy() + update.dense()
            parameter.copy_(torch.as_tensor(whole.astype(np.float32)))
