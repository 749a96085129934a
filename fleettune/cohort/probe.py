"""Measuring K devices at once without training: gradients of probes, norms of adapters' outputs.

A probe's B is zero, so the model computes as without it and ``dL/dB`` is the first-order loss that
an adapter at the site buys per unit step (docs/methods.md#gradcut-by-joule-benefits). Nothing is
updated, so a device's gradients add over its batches; the sum of all devices' losses keeps them
apart, as in tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fleettune.backbone.causal_lm import Backbone
from fleettune.cohort.score import slices
from fleettune.jobs.jobs import OutputNormJob, OutputNormResult, ProbeJob, ProbeResult
from fleettune.kernels.adapted_linear import adapted_linear
from fleettune.kernels.adapter_stack import Stack, replace_forwards, stack_patches
from fleettune.kernels.batches import pad_tokens
from fleettune.kernels.step_rows import ExampleTable, lay_out_step, tabulate_examples
from fleettune.kernels.training_pass import lower_layers, training_pass
from fleettune.shapes import Site

_Sums = dict[Site, Tensor]
"""A device's gradient of B by site, ``(rank, n_out)``."""


def probe_cohort(backbone: Backbone, jobs: Sequence[ProbeJob]) -> list[ProbeResult]:
    """Returns every device's summed gradients; equal to probing each alone, to float tolerance."""
    table = tabulate_examples(jobs)
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
    table: ExampleTable,
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
        chosen = lay_out_step(table, devices, step)
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


@torch.no_grad()
def measure_cohort(backbone: Backbone, jobs: Sequence[OutputNormJob]) -> list[OutputNormResult]:
    """Returns ``sum ||s B A x||^2`` by site over every device's tokens.

    Equal to measuring each device alone, to float tolerance.
    """
    stack = stack_patches([job.patch.untie() for job in jobs], backbone)
    sums = {site: torch.zeros(len(jobs)) for site in stack.factors}
    longest = max(len(example.tokens) for job in jobs for example in job.examples)
    for part in slices([len(job.examples) for job in jobs], longest):
        rows = [jobs[d].examples[i].tokens if i is not None else () for d, i in part]
        tokens = pad_tokens([row or (0,) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        real = torch.arange(tokens.shape[1])[None] < lengths[:, None]
        forwards = {
            site: partial(_forward, backbone.linear(site), stack, site, sums[site], real)
            for site in stack.factors
        }
        with replace_forwards(backbone, forwards):
            backbone.layers(backbone.embed(tokens), 0, backbone.shapes.layers)
    return [
        OutputNormResult(squares={site: float(sums[site][place]) for site in job.patch.ranks})
        for place, job in enumerate(jobs)
    ]


def _forward(
    linear: nn.Linear, stack: Stack, site: Site, total: Tensor, real: Tensor, x: Tensor
) -> Tensor:
    """Returns a layer's adapted output; adds the squares of what adapters give real tokens."""
    a, b = stack.factors[site]
    rows = x.reshape(len(total), -1, x.shape[-1]).float()
    out = stack.scales[site] * torch.bmm(torch.bmm(rows, a.transpose(1, 2)), b)
    total += (out.square().sum(-1) * real.reshape(len(total), -1)).sum(1)
    return adapted_linear(linear, x, a, b, stack.scales[site])
