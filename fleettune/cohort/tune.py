"""Tuning K devices at once: one forward and backward pass per step over one frozen backbone.

Devices whose steps are over leave: the others are stacked anew, with their optimizer's moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fleettune.adapters.patch import Patch
from fleettune.backbone.causal_lm import Backbone
from fleettune.jobs.jobs import TuneJob, TuneResult
from fleettune.kernels.adapter_stack import Stack, carry, stack_patches
from fleettune.kernels.stacked_adamw import StackedAdamW
from fleettune.kernels.step_rows import ExampleTable, lay_out_step, tabulate_examples
from fleettune.kernels.training_pass import MEMORY_BYTES, cache_prefix, training_pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """Devices in training: which jobs they have, their factors and their optimizer."""

    devices: tuple[int, ...]
    stack: Stack
    optimizer: StackedAdamW


def tune_cohort(
    backbone: Backbone, jobs: Sequence[TuneJob], prefix_bytes: int = MEMORY_BYTES
) -> list[TuneResult]:
    """Returns every device's trained patch; equal to training each alone, to float tolerance.

    Args:
        backbone: The model.
        jobs: The devices' tunes; their steps, ranks and sites may differ.
        prefix_bytes: Size of the host's prefix cache beyond which it lies in a file.
    """
    keep_freed_memory()
    stack = stack_patches([job.start for job in jobs], backbone)
    cut = min(site.layer for site in stack.factors)
    table = tabulate_examples(jobs)
    lengths = torch.tensor([len(example.tokens) for example in table.examples])
    training = _Training(
        devices=tuple(range(len(jobs))),
        stack=stack,
        optimizer=StackedAdamW(
            stack, [job.learning_rate for job in jobs], [job.clip for job in jobs]
        ),
    )
    patches: dict[tuple[int, int], Patch] = {}
    losses = torch.zeros(max(len(job.batches) for job in jobs), len(jobs))
    with cache_prefix(backbone, table.tokens, lengths, cut, prefix_bytes) as prefix:
        start = 0
        for end in pause_steps(jobs):
            frozen = [jobs[device].frozen_a for device in training.devices]
            _train(backbone, training, table, prefix, cut, range(start, end), losses, frozen)
            start = end
            for index, device in enumerate(training.devices):
                if end in snapshot_steps(jobs[device]):
                    patches[device, end] = training.stack.patch(index, jobs[device].start)
            if any(len(jobs[device].batches) == end for device in training.devices):
                training = _without_finished(backbone, training, jobs, end)
    return [
        TuneResult(
            patch=patches[device, len(job.batches)],
            first_loss=float(losses[0, device]),
            last_loss=float(losses[len(job.batches) - 1, device]),
            snapshots=tuple(patches[device, step] for step in job.keep_at),
        )
        for device, job in enumerate(jobs)
    ]


def snapshot_steps(job: TuneJob) -> frozenset[int]:
    """Returns the numbers of steps after which a job's patch is read."""
    return frozenset((*job.keep_at, len(job.batches)))


def pause_steps(jobs: Sequence[TuneJob]) -> list[int]:
    """Returns the numbers of steps after which any job's patch is read, ascending."""
    return sorted(frozenset[int]().union(*map(snapshot_steps, jobs)))


def _train(  # noqa: PLR0913, PLR0917 - what is trained, on what, and where losses go
    backbone: Backbone,
    training: _Training,
    table: ExampleTable,
    prefix: Tensor,
    cut: int,
    steps: range,
    losses: Tensor,
    frozen: Sequence[bool],
) -> None:
    """Trains through some steps that all of the devices have; writes ``losses[step, device]``.

    Where A is frozen its gradient is zero, which Adam without weight decay leaves as it is.
    """
    run = training_pass(backbone, training.stack, cut)
    for step in steps:
        chosen = lay_out_step(table, training.devices, step)
        hidden = prefix[chosen.examples.to(prefix.device), : chosen.positions]
        found, gradient = run(hidden.to(backbone.device), chosen)
        if any(frozen):
            still = [place for place, is_frozen in enumerate(frozen) if is_frozen]
            for a, _ in training.stack.factors.values():
                training.stack.view(a, gradient)[still] = 0
        training.optimizer.step(gradient)
        losses[step, list(training.devices)] = found


def _without_finished(
    backbone: Backbone, training: _Training, jobs: Sequence[TuneJob], steps: int
) -> _Training:
    """Returns the training of those devices that have more than `steps` steps."""
    index = [place for place, job in enumerate(training.devices) if len(jobs[job].batches) > steps]
    devices = tuple(training.devices[place] for place in index)
    if not devices:
        return training
    stack = stack_patches([jobs[device].start for device in devices], backbone)
    stack.flat.copy_(carry(training.stack.flat, training.stack, stack, index))
    return _Training(
        devices=devices, stack=stack, optimizer=training.optimizer.compact(stack, index)
    )


_LARGEST_BYTES = 31 * 2**20
"""Just below 32 MiB, the largest block by which glibc raises its thresholds."""


def keep_freed_memory() -> None:
    """Lets the process keep up to 62 MiB of freed memory for its next step.

    A freed block raises glibc's thresholds: smaller ones then come from the heap, of which up to
    twice its size stays with the process when freed.
    """
    block = torch.empty(_LARGEST_BYTES, dtype=torch.uint8)
    del block
