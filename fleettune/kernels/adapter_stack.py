"""Stacked adapters: K devices' patches side by side on one frozen backbone.

Rows of a batch are device-major, ``x.view(K, rows * positions, n_in)``, so one batched
multiplication applies every device's own factors. Unlike ranks are zero-padded: padded rows of both
get zero gradients and stay exactly zero under Adam without weight decay. The loss is the sum of the
devices' losses: a device's factors act on its own rows only, so its gradient is as if it were
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fleettune.adapters.patch import Factors, Patch
from fleettune.backbone.causal_lm import Backbone
from fleettune.kernels.adapted_linear import adapted_linear
from fleettune.shapes import Site


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
        """Returns the tensors that training differentiates."""
        return [tensor for pair in self.factors.values() for tensor in pair]

    def views(self, values: Tensor) -> dict[Site, tuple[Tensor, Tensor]]:
        """Returns `factors` of another tensor laid out as `flat`."""
        return {
            site: (self.view(a, values), self.view(b, values))
            for site, (a, b) in self.factors.items()
        }

    def view(self, factor: Tensor, values: Tensor, rows: int | None = None) -> Tensor:
        """Returns what stands in `values` where a factor stands in `flat`.

        Args:
            factor: One of `factors`.
            values: A tensor laid out as `flat`.
            rows: How many rows from the factor's first one; the factor's own if None.
        """
        rows = factor.shape[1] if rows is None else rows
        start = factor.storage_offset() - self.flat.storage_offset()
        width = factor.shape[2]
        return values[:, start : start + rows * width].view(len(values), rows, width)

    def patch(self, index: int, like: Patch) -> Patch:
        """Returns one device's present values, with the sites and ranks of another patch."""
        factors: dict[Site, Factors] = {}
        for site, item in like.factors.items():
            rank = item.a.shape[0]
            a, b = self.factors[site]
            factors[site] = Factors(
                a=a[index, :rank].detach().clone().cpu().numpy(),
                b=b[index, :rank].detach().t().contiguous().cpu().numpy(),
            )
        return Patch(release=like.release, alpha=like.alpha, factors=factors)


def site_groups(layers: int) -> Iterator[tuple[Site, ...]]:
    """Yields a model's sites in forward order, those that read one input together.

    The top layer's queries read other positions than its keys and values.
    """
    for layer in range(layers):
        first = ("q", "kv") if layer == layers - 1 else ("qkv",)
        for group in (*map(tuple, first), ("o",), ("gate", "up"), ("down",)):
            yield tuple(Site(layer, module) for module in group)


def stack_patches(patches: Sequence[Patch], backbone: Backbone) -> Stack:
    """Returns the patches stacked over the union of their sites, zero where one has none.

    Of every group of sites first all A stand in `flat`, then all B.
    """
    matrices = backbone.shapes.matrices()
    ranks: dict[Site, int] = {}
    for patch in patches:
        for site, item in patch.factors.items():
            ranks[site] = max(ranks.get(site, 0), item.a.shape[0])
    width = sum(rank * sum(matrices[site.module]) for site, rank in ranks.items())
    flat = torch.zeros(len(patches), width)
    factors: dict[Site, tuple[Tensor, Tensor]] = {}
    start = 0
    for group in site_groups(backbone.shapes.layers):
        held = [site for site in group if site in ranks]
        found: dict[tuple[Site, int], Tensor] = {}
        for side in (0, 1):
            for site in held:
                n = matrices[site.module][side]
                end = start + ranks[site] * n
                found[site, side] = flat[:, start:end].view(-1, ranks[site], n)
                start = end
        factors |= {site: (found[site, 0], found[site, 1]) for site in held}
    stack = Stack(
        flat=flat,
        factors=factors,
        scales={site: torch.zeros(len(patches), 1, 1) for site in factors},
    )
    for index, patch in enumerate(patches):
        _fill(stack, index, patch)
    return stack


def _fill(stack: Stack, index: int, patch: Patch) -> None:
    for site, item in patch.factors.items():
        a, b = stack.factors[site]
        own = item.a.shape[0]
        a[index, :own] = torch.as_tensor(item.a)
        b[index, :own] = torch.as_tensor(item.b).t()
        stack.scales[site][index] = patch.scale(site)


def carry(values: Tensor, old: Stack, new: Stack, devices: Sequence[int]) -> Tensor:
    """Returns some devices' values of `old` laid out as `new`, whose sites and ranks `old` has."""
    found = torch.zeros_like(new.flat)
    places, index = new.views(found), torch.tensor(devices)
    for site, (a, b) in old.views(values).items():
        if site in places:
            for here, there in zip(places[site], (a, b), strict=True):
                here.copy_(there.detach()[index, : here.shape[1]])
    return found


def apply_adapters(backbone: Backbone, stack: Stack) -> AbstractContextManager[None]:
    """Applies the stacked adapters to the backbone's linear layers while a block runs."""
    return replace_forwards(
        backbone,
        {
            site: partial(adapted_linear, backbone.linear(site), a=a, b=b, scale=stack.scales[site])
            for site, (a, b) in stack.factors.items()
        },
    )


@contextmanager
def replace_forwards(
    backbone: Backbone, forwards: Mapping[Site, Callable[[Tensor], Tensor]]
) -> Generator[None]:
    """Gives some sites' linear layers another forward pass while the block runs."""
    with ExitStack() as replaced:
        for site, forward in forwards.items():
            linear = backbone.linear(site)
            # an attribute of the instance hides the method of its class
            vars(linear)["forward"] = forward
            replaced.callback(vars(linear).pop, "forward")
        yield
