"""Tuning K devices with tied sites: the passes of untied ones, with other parameters.

The stack holds factors of every site's own, computed from the shared pairs before every step. The
gradients of a pass go back through that computation, so a pair gets the sum over its sites, and
each vector its site's share. Clipping and AdamW work on pairs and vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fleettune.adapters.factors import Factors, TiedPair
from fleettune.adapters.patch import Patch
from fleettune.backbone.causal_lm import Backbone
from fleettune.cohort.tune import pause_steps, snapshot_steps
from fleettune.jobs.jobs import TuneJob, TuneResult
from fleettune.kernels.adapter_stack import stack_patches
from fleettune.kernels.stacked_adamw import BETAS, EPSILON
from fleettune.kernels.step_rows import lay_out_step, tabulate_examples
from fleettune.kernels.training_pass import MEMORY_BYTES, cache_prefix, training_pass
from fleettune.shapes import Site

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
    with cache_prefix(backbone, table.tokens, lengths, cut, MEMORY_BYTES) as prefix:
        start = 0
        for end in pause_steps(jobs):
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
            kept |= {(p, end): devices[p].patch() for p in index if end in snapshot_steps(jobs[p])}
    return [
        TuneResult(
            patch=kept[place, len(device.job.batches)],
            first_loss=float(losses[0, place]),
            last_loss=float(losses[len(device.job.batches) - 1, place]),
            snapshots=tuple(kept[place, step] for step in device.job.keep_at),
        )
        for place, device in enumerate(devices)
    ]


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
