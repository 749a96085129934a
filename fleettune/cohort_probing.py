"""Probing K devices at once: the gradient that an adapter at every candidate site would get.

A probe's B is zero, so the model computes as without it and ``dL/dB`` is the first-order loss that
an adapter at the site buys per unit step (METHODS E1). Nothing is updated, so a device's gradients
add over its batches; the sum of all devices' losses keeps them apart, as in tuning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fleettune.backbone import Backbone
from fleettune.batches import pad_tokens
from fleettune.cohort_tuning import device_losses, step_rows
from fleettune.compute import ProbeJob, ProbeResult
from fleettune.stacked import Stack, applied, stack_patches
from fleettune.tokens import Example


def probe_cohort(backbone: Backbone, jobs: Sequence[ProbeJob]) -> list[ProbeResult]:
    """Returns every device's summed gradients; equal to probing each alone, to float tolerance."""
    stack = stack_patches([job.probe for job in jobs], backbone)
    cut = min(site.layer for site in stack.factors)
    for _, b in stack.factors.values():
        b.requires_grad_()
    with applied(backbone, stack):
        for step in range(max(len(job.batches) for job in jobs)):
            rows = step_rows(jobs, step)
            hidden = _below(backbone, rows, cut)
            losses = device_losses(backbone, hidden, rows, cut, len(jobs))
            losses.sum().backward()  # pyright: ignore[reportUnknownMemberType] - torch's own type
    return [_result(stack, index, job) for index, job in enumerate(jobs)]


@torch.no_grad()
def _below(backbone: Backbone, rows: Sequence[Example | None], cut: int) -> Tensor:
    """Returns the hidden state below the lowest candidate, where no graph is needed."""
    tokens = pad_tokens([() if example is None else example.tokens for example in rows])
    return backbone.layers(backbone.embed(tokens), 0, cut)


def _result(stack: Stack, index: int, job: ProbeJob) -> ProbeResult:
    gradients = {
        site: _gradient(stack.factors[site][1], index, item.a.shape[0])
        for site, item in job.probe.factors.items()
    }
    return ProbeResult(
        benefit={
            site: float(np.square(array, dtype=np.float64).sum())
            for site, array in gradients.items()
        },
        gradients=gradients,
    )


def _gradient(b: Tensor, index: int, rank: int) -> np.ndarray:
    """Returns one device's gradient of B at one site, ``(n_out, rank)``, without padded ranks."""
    summed = torch.zeros_like(b) if b.grad is None else b.grad
    return summed[index, :rank].t().contiguous().cpu().numpy()
