"""The rows of every step of a cohort's tuning, and where they are supervised.

All steps' index tensors come from a few tensors made once per tune. Rows are device-major and
padded to equal numbers per device, as are supervised tokens; padding has weight zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fleettune.data.tokens import Example
from fleettune.jobs.jobs import ProbeJob, TuneJob
from fleettune.kernels.batches import pad_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRows:
    """One step's rows and supervised tokens, device-major.

    Attributes:
        examples: Which example stands in every row, ``(K * height,)``.
        positions: Positions that the step computes: to the last one that predicts, and on to a
            multiple of 8, which attention likes better.
        first: The first position from which anything is predicted.
        rows: Row of every supervised token, ``(K * width,)``.
        columns: Position whose state predicts it.
        targets: The token itself.
        weights: One over the device's number of supervised tokens; 0 for padding.
    """

    examples: Tensor
    positions: int
    first: int
    rows: Tensor
    columns: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleTable:
    """A cohort's distinct examples.

    Attributes:
        examples: The examples.
        tokens: Their tokens, ``(examples, longest)``.
        predicting: Whether a position's state predicts a supervised token, the same shape.
        index: By job, step and row: which example.
    """

    examples: Sequence[Example]
    tokens: Tensor
    predicting: Tensor
    index: Sequence[Sequence[Sequence[int]]]


def tabulate_examples(jobs: Sequence[TuneJob] | Sequence[ProbeJob]) -> ExampleTable:
    """Returns the table of some jobs' examples."""
    place: dict[Example, int] = {}
    index = [
        [[place.setdefault(example, len(place)) for example in batch] for batch in job.batches]
        for job in jobs
    ]
    examples = list(place)
    tokens = pad_tokens([example.tokens for example in examples])
    column = torch.arange(tokens.shape[1])
    prompts = torch.tensor([example.prompt for example in examples])[:, None]
    lengths = torch.tensor([len(example.tokens) for example in examples])[:, None]
    predicting = (column >= prompts - 1) & (column < lengths - 1)
    return ExampleTable(examples=examples, tokens=tokens, predicting=predicting, index=index)


def lay_out_step(table: ExampleTable, devices: Sequence[int], step: int) -> StepRows:
    """Returns one step's rows and supervised tokens of some devices that all have this step."""
    batches = [table.index[device][step] for device in devices]
    height = max(map(len, batches))
    # a row of padding is an example of nobody, and never supervised
    examples = torch.tensor([[*batch, *[0] * (height - len(batch))] for batch in batches])
    used = torch.arange(height) < torch.tensor([len(batch) for batch in batches])[:, None]
    marked = table.predicting[examples] & used[:, :, None]
    columns = marked.flatten(0, 1).any(0).nonzero()[:, 0]
    positions = min((int(columns[-1]) + 8) // 8 * 8, table.tokens.shape[1])
    first = int(columns[0])
    marked = marked[:, :, :positions].flatten(1)
    counts = marked.sum(1, keepdim=True)
    width = int(counts.max())
    # supervised places first, in order; what pads a device is a place of its own
    chosen = torch.sort(marked, dim=1, descending=True, stable=True).indices[:, :width]
    row = chosen // positions + height * torch.arange(len(devices))[:, None]
    column = (chosen % positions).clamp(min=first)
    weights = (torch.arange(width) < counts) / counts.clamp(min=1)
    flat = examples.flatten()
    return StepRows(
        examples=flat,
        positions=positions,
        first=first,
        rows=row.flatten(),
        columns=column.flatten(),
        targets=table.tokens[
            flat[row], (column + 1).clamp(max=table.tokens.shape[1] - 1)
        ].flatten(),
        weights=weights.flatten(),
    )
