"""Tuning K devices at once: one forward and backward pass per step over one frozen backbone.

Devices whose steps are over leave: the others are stacked anew, with their optimizer's moments.
Devices with tied sites run the same passes with other parameters: the stack holds factors of every
site's own, computed from the shared pairs before every step. The gradients of a pass go back
through that computation, so a pair gets the sum over its sites, and each vector its site's share.
Clipping and AdamW work on pairs and vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fleettune.adapters.factors import Factors, TiedPair
from fleettune.adapters.patch import Patch
from fleettune.backbone.causal_lm import Backbone
from fleettune.jobs.jobs import TuneJob, TuneResult
from fleettune.kernels.adapter_stack import Stack, carry, stack_patches
from fleettune.kernels.stacked_adamw import BETAS, EPSILON, StackedAdamW
from fleettune.kernels.step_rows import ExampleTable, lay_out_step, tabulate_examples
from fleettune.kernels.training_pass import MEMORY_BYTES, cache_prefix, training_pass
from fleettune.shapes import Site


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
    _keep_freed_memory()
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
    prefix = cache_prefix(backbone, table.tokens, lengths, cut, prefix_bytes)
    start = 0
    for end in _pause_steps(jobs):
        frozen = [jobs[device].frozen_a for device in training.devices]
        _train(backbone, training, table, prefix, cut, range(start, end), losses, frozen)
        start = end
        for index, device in enumerate(training.devices):
            if end in _snapshot_steps(jobs[device]):
                patches[device, end] = training.stack.patch(index, jobs[device].start)
        if any(len(jobs[device].batches) == end for device in training.devices):
            training = _without_finished(backbone, training, jobs, end)
    return _results(jobs, patches, losses)


def _results(
    jobs: Sequence[TuneJob], patches: Mapping[tuple[int, int], Patch], losses: Tensor
) -> list[TuneResult]:
    """Returns every job's result from patches by (job, step) and losses by ``[step, job]``."""
    return [
        TuneResult(
            patch=patches[place, len(job.batches)],
            first_loss=float(losses[0, place]),
            last_loss=float(losses[len(job.batches) - 1, place]),
            snapshots=tuple(patches[place, step] for step in job.keep_at),
        )
        for place, job in enumerate(jobs)
    ]


def _snapshot_steps(job: TuneJob) -> frozenset[int]:
    """Returns the numbers of steps after which a job's patch is read."""
    return frozenset((*job.keep_at, len(job.batches)))


def _pause_steps(jobs: Sequence[TuneJob]) -> list[int]:
    """Returns the numbers of steps after which any job's patch is read, ascending."""
    return sorted(frozenset[int]().union(*map(_snapshot_steps, jobs)))


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


def _keep_freed_memory() -> None:
    """Lets the process keep up to 62 MiB of freed memory for its next step.

    A freed block raises glibc's thresholds: smaller ones then come from the heap, of which up to
    twice its size stays with the process when freed.
    """
    block = torch.empty(_LARGEST_BYTES, dtype=torch.uint8)
    del block


_Pairs = dict[Site, tuple[Tensor, Tensor]]
"""By site: A ``(rank, n_in)`` and B transposed ``(rank, n_out)``."""


@dataclass(frozen=True, slots=True)
class _Tie:
    """A tied pair in training: A, B ``(n_out, rank)``, and (u, v) by site."""

    a: Tensor
    b: Tensor
    vectors: dict[Site, tuple[Tensor, Tensor]]


class _Device:
    """One device's parameters and their optimizer."""

    def __init__(self, job: TuneJob) -> None:
        self.job = job
        start = job.start
        self._own = {site: (_leaf(item.a), _leaf(item.b)) for site, item in start.factors.items()}
        self._ties = [
            _Tie(
                _leaf(tied.pair.a),
                _leaf(tied.pair.b),
                {site: (_leaf(u), _leaf(v)) for site, (u, v) in tied.vectors.items()},
            )
            for tied in start.ties
        ]
        self._leaves = [tensor for pair in self._own.values() for tensor in pair]
        for tie in self._ties:
            self._leaves += [tie.a, tie.b]
            self._leaves += [tensor for pair in tie.vectors.values() for tensor in pair]
        self._optimizer = torch.optim.AdamW(
            self._leaves, lr=job.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0
        )

    @torch.enable_grad()
    def pairs(self) -> _Pairs:
        """Returns the factors of every site, as functions of the parameters."""
        found: _Pairs = {site: (a, b.t()) for site, (a, b) in self._own.items()}
        for tie, tied in zip(self._ties, self.job.start.ties, strict=True):
            more = tied.alpha / self.job.start.alpha
            for site, (u, v) in tie.vectors.items():
                found[site] = (tie.a, (more * v[:, None] * tie.b * u).t())
        return found

    def step(self, pairs: _Pairs, gradients: _Pairs) -> None:
        """Takes one step, given the gradients of every site's factors."""
        made = [tensor for site in pairs for tensor in pairs[site]]
        given = [tensor for site in pairs for tensor in gradients[site]]
        torch.autograd.backward(made, given)
        torch.nn.utils.clip_grad_norm_(self._leaves, self.job.clip)
        self._optimizer.step()  # pyright: ignore[reportUnknownMemberType] - torch's own type
        self._optimizer.zero_grad()

    def patch(self) -> Patch:
        """Returns the present values."""
        start = self.job.start
        return Patch(
            release=start.release,
            alpha=start.alpha,
            factors={s: Factors(a=_array(a), b=_array(b)) for s, (a, b) in self._own.items()},
            ties=tuple(
                TiedPair(
                    pair=Factors(a=_array(tie.a), b=_array(tie.b)),
                    alpha=tied.alpha,
                    vectors={s: (_array(u), _array(v)) for s, (u, v) in tie.vectors.items()},
                )
                for tie, tied in zip(self._ties, start.ties, strict=True)
            ),
        )


def tune_tied_cohort(backbone: Backbone, jobs: Sequence[TuneJob]) -> list[TuneResult]:
    """Returns every device's trained patch; equal to training each alone, to float tolerance."""
    devices = [_Device(job) for job in jobs]
    cut = min(site.layer for job in jobs for site in job.start.ranks)
    table = tabulate_examples(jobs)
    lengths = torch.tensor([len(example.tokens) for example in table.examples])
    losses = torch.zeros(max(len(job.batches) for job in jobs), len(jobs))
    kept: dict[tuple[int, int], Patch] = {}
    prefix = cache_prefix(backbone, table.tokens, lengths, cut, MEMORY_BYTES)
    start = 0
    for end in _pause_steps(jobs):
        index = [place for place, job in enumerate(jobs) if len(job.batches) >= end]
        present = [devices[place] for place in index]
        stack = stack_patches([device.patch().untie() for device in present], backbone)
        run = training_pass(backbone, stack, cut)
        for step in range(start, end):
            pairs = [device.pairs() for device in present]
            _copy(pairs, stack.factors)
            chosen = lay_out_step(table, index, step)
            hidden = prefix[chosen.examples.to(prefix.device), : chosen.positions]
            found, gradient = run(hidden.to(backbone.device), chosen)
            losses[step, index] = found
            views = stack.views(gradient)
            for row, (device, own) in enumerate(zip(present, pairs, strict=True)):
                device.step(own, _rows(views, own, row))
        start = end
        kept |= {(p, end): devices[p].patch() for p in index if end in _snapshot_steps(jobs[p])}
    return _results(jobs, kept, losses)


@torch.no_grad()
def _copy(pairs: Sequence[_Pairs], stacked: _Pairs) -> None:
    """Writes every device's factors into the stack."""
    for row, own in enumerate(pairs):
        for site, factors in own.items():
            for mine, there in zip(factors, stacked[site], strict=True):
                there[row, : len(mine)] = mine


def _rows(views: _Pairs, own: _Pairs, row: int) -> _Pairs:
    """Returns one device's part of what is laid out as the stack, without padded ranks."""
    return {
        site: (views[site][0][row, : len(a)], views[site][1][row, : len(b)])
        for site, (a, b) in own.items()
    }


def _leaf(array: np.ndarray) -> Tensor:
    return torch.tensor(array).requires_grad_()


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().clone().numpy()
