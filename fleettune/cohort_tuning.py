"""Tuning K devices at once: one forward and backward pass per step over one frozen backbone.

Below the lowest adapted layer nothing changes during tuning, so the host computes the hidden state
there once per example and keeps it (METHODS E2); no graph is built below it. This is the host's
saving and free of charge: a device without a cache of its own is charged for every pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fleettune.backbone import Backbone
from fleettune.batches import pad_tokens
from fleettune.compute import ProbeJob, TuneJob, TuneResult
from fleettune.head import head_losses
from fleettune.stacked import StackedAdamW, applied, stack_patches
from fleettune.tokens import Example

_PREFIX_ROWS = 64


def tune_cohort(backbone: Backbone, jobs: Sequence[TuneJob]) -> list[TuneResult]:
    """Returns every device's trained patch; equal to training each alone, to float tolerance."""
    patches = [job.start for job in jobs]
    stack = stack_patches(patches, backbone)
    cut = min(site.layer for site in stack.factors)
    examples = list(dict.fromkeys(e for job in jobs for batch in job.batches for e in batch))
    place = {example: index for index, example in enumerate(examples)}
    prefix = _prefix(backbone, examples, cut)
    for leaf in stack.leaves():
        leaf.requires_grad_()
    optimizer = StackedAdamW(
        stack,
        torch.tensor([job.learning_rate for job in jobs]),
        torch.tensor([job.clip for job in jobs]),
    )
    history: list[Tensor] = []
    with applied(backbone, stack):
        for step in range(max(len(job.batches) for job in jobs)):
            rows = step_rows(jobs, step)
            hidden = _gather(prefix, rows, place)
            losses = device_losses(backbone, hidden, rows, cut, len(jobs))
            losses.sum().backward()  # pyright: ignore[reportUnknownMemberType] - torch's own type
            active = torch.tensor([float(step < len(job.batches)) for job in jobs])
            optimizer.step(active)
            history.append(losses.detach())
    tuned = stack.unstack(patches)
    return [
        TuneResult(
            patch=patch,
            first_loss=float(history[0][index]),
            last_loss=float(history[len(job.batches) - 1][index]),
        )
        for index, (job, patch) in enumerate(zip(jobs, tuned, strict=True))
    ]


@torch.no_grad()
def _prefix(backbone: Backbone, examples: Sequence[Example], cut: int) -> Tensor:
    tokens = pad_tokens([example.tokens for example in examples])
    parts = [
        backbone.layers(backbone.embed(tokens[start : start + _PREFIX_ROWS]), 0, cut)
        for start in range(0, len(tokens), _PREFIX_ROWS)
    ]
    return torch.cat(parts)


def step_rows(jobs: Sequence[TuneJob] | Sequence[ProbeJob], step: int) -> list[Example | None]:
    """Returns one step's rows, device-major, padded with None to equal rows per device."""
    batches = [job.batches[step] if step < len(job.batches) else () for job in jobs]
    width = max(map(len, batches))
    return [
        batch[index] if index < len(batch) else None for batch in batches for index in range(width)
    ]


def _gather(prefix: Tensor, rows: Sequence[Example | None], place: dict[Example, int]) -> Tensor:
    longest = max(len(example.tokens) for example in rows if example is not None)
    index = torch.tensor([0 if example is None else place[example] for example in rows])
    return prefix[index, :longest]


def device_losses(
    backbone: Backbone, hidden: Tensor, rows: Sequence[Example | None], cut: int, devices: int
) -> Tensor:
    """Returns each device's mean loss over its supervised tokens of this step, ``(K,)``."""
    places = _supervise(rows, devices)
    last = backbone.shapes.layers - 1
    hidden = backbone.layers(hidden, cut, last) if cut < last else hidden
    states = backbone.top_at(hidden, places.rows, places.positions)
    losses = head_losses(backbone.head, states, places.targets, places.weights)
    return losses.view(devices, -1).sum(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """One step's supervised tokens, device-major, padded to equal numbers per device.

    Attributes:
        rows: Row of every token, ``(K * width,)``.
        positions: Position whose state predicts it.
        targets: The token itself.
        weights: One over the device's number of supervised tokens; 0 for padding.
    """

    rows: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor


def _supervise(rows: Sequence[Example | None], devices: int) -> _Places:
    height = len(rows) // devices
    found = [
        [
            (row, place - 1, example.tokens[place])
            for row in range(device * height, (device + 1) * height)
            if (example := rows[row]) is not None
            for place in range(example.prompt, len(example.tokens))
        ]
        for device in range(devices)
    ]
    width = max(1, *map(len, found))
    # a padding place is the device's own first token, so that blocks of rows stay apart
    padded = [
        [*mine, *[(device * height, 0, 0)] * (width - len(mine))]
        for device, mine in enumerate(found)
    ]
    flat = torch.tensor(padded).flatten(0, 1)
    counts = torch.tensor([len(mine) for mine in found])[:, None]
    weights = (torch.arange(width) < counts) / counts.clamp_min(1)
    return _Places(
        rows=flat[:, 0], positions=flat[:, 1], targets=flat[:, 2], weights=weights.flatten()
    )
