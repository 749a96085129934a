"""Probing K devices at once: the gradient that an adapter at every candidate site would get.

A probe's B is zero, so the model computes as without it and ``dL/dB`` is the first-order loss that
an adapter at the site buys per unit step (docs/methods.md#gradcut-by-joule-benefits). Nothing is
updated, so a device's gradients
add over its batches; the sum of all devices' losses keeps them apart, as in tuning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fleettune.backbone.causal_lm import Backbone
from fleettune.jobs.jobs import ProbeJob, ProbeResult
from fleettune.kernels.adapter_stack import stack_patches
from fleettune.kernels.step_rows import Table, places, tabulate
from fleettune.kernels.training_pass import lower_layers, training_pass
from fleettune.shapes import Site

_Sums = dict[Site, Tensor]
"""A device's gradient of B by site, ``(rank, n_out)``."""


def probe_cohort(backbone: Backbone, jobs: Sequence[ProbeJob]) -> list[ProbeResult]:
    """Returns every device's summed gradients; equal to probing each alone, to float tolerance."""
    table = tabulate(jobs)
    sums: list[_Sums] = [{} for _ in jobs]
    start = 0
    for end in sorted({len(job.batches) for job in jobs}):
        devices = [place for place, job in enumerate(jobs) if len(job.batches) >= end]
        _probe(backbone, jobs, table, devices, range(start, end), sums)
        start = end
    return [_result(job, found) for job, found in zip(jobs, sums, strict=True)]


def _probe(
    backbone: Backbone,
    jobs: Sequence[ProbeJob],
    table: Table,
    devices: Sequence[int],
    steps: range,
    sums: list[_Sums],
) -> None:
    """Adds the gradients of some batches that all of the devices have to ``sums[device]``."""
    stack = stack_patches([jobs[device].probe for device in devices], backbone)
    cut = min(site.layer for site in stack.factors)
    run = training_pass(backbone, stack, cut)
    total = torch.zeros_like(stack.flat)
    for step in steps:
        chosen = places(table, devices, step)
        tokens = table.tokens[chosen.examples, : chosen.positions]
        with torch.no_grad():
            hidden = lower_layers(backbone, backbone.embed(tokens), cut)
        total += run(hidden, chosen)[1]
    for index, device in enumerate(devices):
        for site, item in jobs[device].probe.factors.items():
            b = stack.view(stack.factors[site][1], total)
            own = b[index, : item.a.shape[0]]
            sums[device][site] = sums[device].get(site, 0) + own


def _result(job: ProbeJob, sums: _Sums) -> ProbeResult:
    gradients = {site: sums[site].t().contiguous().cpu().numpy() for site in job.probe.factors}
    return ProbeResult(
        benefit={
            site: float(np.square(array, dtype=np.float64).sum())
            for site, array in gradients.items()
        },
        gradients=gradients,
    )
