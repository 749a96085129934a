"""Measuring K devices' adapter outputs at once, in one forward pass."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from fleettune.backbone.causal_lm import Backbone
from fleettune.cohort.score import slices
from fleettune.jobs.output_norm_job import OutputNormJob, OutputNormResult
from fleettune.kernels.adapted_linear import adapted_linear
from fleettune.kernels.adapter_stack import Stack, stack_patches
from fleettune.kernels.batches import pad_tokens
from fleettune.shapes import Site

_Sums = dict[Site, Tensor]
"""By site: every device's sum so far, ``(K,)``."""


@torch.no_grad()
def measure_cohort(backbone: Backbone, jobs: Sequence[OutputNormJob]) -> list[OutputNormResult]:
    """Returns every device's sums; equal to measuring each alone, to float tolerance."""
    stack = stack_patches([job.patch.untie() for job in jobs], backbone)
    sums: _Sums = {site: torch.zeros(len(jobs)) for site in stack.factors}
    longest = max(len(example.tokens) for job in jobs for example in job.examples)
    for part in slices([len(job.examples) for job in jobs], longest):
        rows = [jobs[d].examples[i].tokens if i is not None else () for d, i in part]
        tokens = pad_tokens([row or (0,) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        real = torch.arange(tokens.shape[1])[None] < lengths[:, None]
        with _measured(backbone, stack, sums, real):
            backbone.layers(backbone.embed(tokens), 0, backbone.shapes.layers)
    return [
        OutputNormResult(squares={site: float(sums[site][place]) for site in job.patch.ranks})
        for place, job in enumerate(jobs)
    ]


@contextmanager
def _measured(backbone: Backbone, stack: Stack, sums: _Sums, real: Tensor) -> Generator[None]:
    """Applies the adapters while the block runs, and adds up what they give to real tokens."""
    with ExitStack() as replaced:
        for site in stack.factors:
            linear = backbone.linear(site)
            # an attribute of the instance hides the method of its class
            vars(linear)["forward"] = partial(_forward, linear, stack, site, sums[site], real)
            replaced.callback(vars(linear).pop, "forward")
        yield


def _forward(
    linear: nn.Linear, stack: Stack, site: Site, total: Tensor, real: Tensor, x: Tensor
) -> Tensor:
    a, b = stack.factors[site]
    rows = x.reshape(len(total), -1, x.shape[-1]).float()
    out = stack.scales[site] * torch.bmm(torch.bmm(rows, a.transpose(1, 2)), b)
    total += (out.square().sum(-1) * real.reshape(len(total), -1)).sum(1)
    return adapted_linear(linear, x, a, b, stack.scales[site])
