"""Stacked adapters: K devices' patches on one frozen backbone, and their optimizer.

Rows of a batch are device-major, ``x.view(K, rows * positions, n_in)``, so one batched
multiplication applies every device's own factors. Unlike ranks are zero-padded: padded rows of both
get zero gradients and stay exactly zero under Adam without weight decay. The sum of per-device
losses keeps gradients apart (MODELS section 3).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fleettune.adapted import adapted_linear
from fleettune.adapters import Factors, Patch, order
from fleettune.backbone import Backbone
from fleettune.sites import Site

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """K patches side by side.

    Attributes:
        flat: All factors of every device, ``(K, parameters)``; the site tensors are views of it.
        factors: By site: A ``(K, rank, n_in)``, B transposed ``(K, rank, n_out)``.
        scales: By site: ``alpha / rank`` per device, ``(K, 1, 1)``.
    """

    flat: Tensor
    factors: dict[Site, tuple[Tensor, Tensor]]
    scales: dict[Site, Tensor]

    def leaves(self) -> list[Tensor]:
        """Returns the tensors that training differentiates, in the order of `flat`."""
        return [tensor for pair in self.factors.values() for tensor in pair]

    def unstack(self, patches: Sequence[Patch]) -> list[Patch]:
        """Returns the present values as patches with the sites and ranks of `patches`."""
        return [self._unstack_one(index, patch) for index, patch in enumerate(patches)]

    def _unstack_one(self, index: int, patch: Patch) -> Patch:
        factors: dict[Site, Factors] = {}
        for site, item in patch.factors.items():
            rank = item.a.shape[0]
            a, b = self.factors[site]
            factors[site] = Factors(
                a=a[index, :rank].detach().clone().cpu().numpy(),
                b=b[index, :rank].detach().t().contiguous().cpu().numpy(),
            )
        return Patch(release=patch.release, alpha=patch.alpha, factors=factors)


def stack_patches(patches: Sequence[Patch], backbone: Backbone) -> Stack:
    """Returns the patches stacked over the union of their sites, zero where one has none."""
    matrices = backbone.shapes.matrices()
    sites = sorted({site for patch in patches for site in patch.factors}, key=order)
    ranks = {
        site: max(p.factors[site].a.shape[0] for p in patches if site in p.factors)
        for site in sites
    }
    width = sum(ranks[site] * sum(matrices[site.module]) for site in sites)
    flat = torch.zeros(len(patches), width)
    factors: dict[Site, tuple[Tensor, Tensor]] = {}
    scales: dict[Site, Tensor] = {}
    start = 0
    for site in sites:
        n_in, n_out = matrices[site.module]
        rank = ranks[site]
        middle, end = start + rank * n_in, start + rank * (n_in + n_out)
        a = flat[:, start:middle].view(-1, rank, n_in)
        b = flat[:, middle:end].view(-1, rank, n_out)
        for index, patch in enumerate(patches):
            item = patch.factors.get(site)
            if item is not None:
                own = item.a.shape[0]
                a[index, :own] = torch.as_tensor(item.a)
                b[index, :own] = torch.as_tensor(item.b).t()
        factors[site] = (a, b)
        scales[site] = torch.tensor(
            [patch.scale(site) if site in patch.factors else 0.0 for patch in patches]
        ).view(-1, 1, 1)
        start = end
    return Stack(flat=flat, factors=factors, scales=scales)


@contextmanager
def applied(backbone: Backbone, stack: Stack) -> Generator[None]:
    """Applies the stacked adapters to the backbone's linear layers while the block runs."""
    with ExitStack() as replaced:
        for site, (a, b) in stack.factors.items():
            linear = backbone.linear(site)
            # an attribute of the instance hides the method of its class
            vars(linear)["forward"] = partial(_forward, linear, a, b, stack.scales[site])
            replaced.callback(vars(linear).pop, "forward")
        yield


def _forward(linear: nn.Linear, a: Tensor, b: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    return adapted_linear(linear, x, a, b, scale)


class StackedAdamW:
    """AdamW without weight decay over a stack: per-device steps, activity and clipping."""

    def __init__(self, stack: Stack, learning_rates: Tensor, clips: Tensor) -> None:
        self._flat = stack.flat
        self._leaves = stack.leaves()
        self._rates = learning_rates.view(-1, 1)
        self._clips = clips
        self._first = torch.zeros_like(stack.flat)
        self._second = torch.zeros_like(stack.flat)
        # double: in single precision 1 - 0.999 ** 1 keeps four digits only
        self._steps = torch.zeros(stack.flat.shape[0], 1, dtype=torch.float64)

    @torch.no_grad()
    def step(self, active: Tensor) -> None:
        """Takes one step of the active devices, ``(K,)`` of 0 or 1; the others stay as they are."""
        devices = self._flat.shape[0]
        gradient = torch.cat([_gradient(leaf).reshape(devices, -1) for leaf in self._leaves], 1)
        norm = gradient.square().sum(1).sqrt()
        gradient *= (self._clips / (norm + 1e-6)).clamp(max=1.0).view(-1, 1)
        alive = active.view(-1, 1)
        self._steps += alive
        self._first.lerp_(gradient, (1 - BETAS[0]) * alive)
        self._second.lerp_(gradient.square_(), (1 - BETAS[1]) * alive)
        # a device that has not stepped yet has zero moments; the floor only avoids 0 / 0
        fix_first = (1 - BETAS[0] ** self._steps).clamp_min(1e-12).float()
        fix_second = (1 - BETAS[1] ** self._steps).clamp_min(1e-12).float()
        scale = (self._second / fix_second).sqrt_().add_(EPSILON)
        self._flat -= alive * self._rates / fix_first * self._first / scale
        for leaf in self._leaves:
            leaf.grad = None


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
