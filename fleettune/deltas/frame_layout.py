"""Layouts: which factors a frame holds, as two short texts of its header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fleettune.adapters.factors import Array, check_tied_alpha
from fleettune.adapters.patch import Patch
from fleettune.deltas.codecs import Shape
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.shapes import Site, order, parse_site


@dataclass(frozen=True, slots=True)
class Group:
    """Sites with one rank; those of a tie share a pair, and have its alpha."""

    sites: tuple[Site, ...]
    rank: int
    alpha: float | None = None


Sizes = Mapping[str, tuple[int, int]]


def sites_text(patch: Patch) -> str:
    """Returns ``4.q.k=8`` for every layer and rank, ``2.up+5.up=4@8.0`` for every tie."""
    layers: dict[tuple[int, int], list[str]] = {}
    for site in sorted(patch.factors, key=order):
        rank = patch.factors[site].a.shape[0]
        layers.setdefault((site.layer, rank), []).append(site.module)
    own = [f"{layer}.{'.'.join(modules)}={rank}" for (layer, rank), modules in layers.items()]
    ties = [
        f"{'+'.join(map(str, sorted(tied.vectors, key=order)))}={tied.pair.a.shape[0]}"
        f"@{tied.alpha!r}"
        for tied in patch.ties
    ]
    return " ".join([*own, *ties])


def parse_sites(text: str) -> list[Group]:
    """Returns the groups that `sites_text` wrote.

    Raises:
        RejectedError: If a site is unknown or named twice.
        ValueError: If a number cannot be read.
    """
    groups: list[Group] = []
    for word in text.split(" "):
        named, _, told = word.partition("=")
        rank, tied, alpha = told.partition("@")
        if tied:
            check_tied_alpha(float(alpha))
            sites = tuple(map(_site, named.split("+")))
            groups.append(Group(sites, int(rank), float(alpha)))
        else:
            layer, *modules = named.split(".")
            groups += [Group((_site(f"{layer}.{module}"),), int(rank)) for module in modules]
    flat = [site for group in groups for site in group.sites]
    if len(set(flat)) < len(flat) or not flat:
        raise RejectedError(Rejection.SITE, f"each site must be named once, got {text!r}")
    return groups


def _site(text: str) -> Site:
    try:
        return parse_site(text)
    except ValueError as error:
        raise RejectedError(Rejection.SITE, str(error)) from error


def sizes_text(patch: Patch) -> str:
    """Returns ``q96x96``, inputs by outputs, for every module that is adapted."""
    sizes: dict[str, tuple[int, int]] = {}
    pairs = [(site, item) for site, item in patch.factors.items()]
    pairs += [(site, tied.pair) for tied in patch.ties for site in tied.vectors]
    for site, item in sorted(pairs, key=lambda pair: order(pair[0])):
        size = item.a.shape[1], item.b.shape[0]
        if sizes.setdefault(site.module, size) != size:
            raise ValueError(f"sites of {site.module} must have one shape, got {size} at {site}")
    return " ".join(f"{module}{n_in}x{n_out}" for module, (n_in, n_out) in sizes.items())


def parse_sizes(text: str) -> dict[str, tuple[int, int]]:
    """Returns the sizes that `sizes_text` wrote; ValueError if a number cannot be read."""
    sizes: dict[str, tuple[int, int]] = {}
    for word in text.split(" "):
        module = word.rstrip("0123456789x")
        n_in, _, n_out = word.removeprefix(module).partition("x")
        sizes[module] = int(n_in), int(n_out)
    return sizes


def named_shapes(
    groups: Sequence[Group], sizes: Sizes
) -> tuple[dict[str, Shape], dict[str, Array]]:
    """Returns the shape of every array that was packed, in their order, and the ties' alphas."""
    shapes: dict[str, Shape] = {}
    alphas: dict[str, Array] = {}
    own = sorted((g for g in groups if g.alpha is None), key=lambda g: order(g.sites[0]))
    ties = [group for group in groups if group.alpha is not None]
    prefixes = [str(group.sites[0]) + "." for group in own] + [f"tie{i}/" for i in range(len(ties))]
    for prefix, group in zip(prefixes, [*own, *ties], strict=True):
        module = group.sites[0].module
        if module not in sizes or any(sizes.get(s.module) != sizes[module] for s in group.sites):
            raise RejectedError(Rejection.SHAPE, f"sizes of {group.sites} are missing or differ")
        n_in, n_out = sizes[module]
        shapes |= {f"{prefix}a": (group.rank, n_in), f"{prefix}b": (n_out, group.rank)}
        if group.alpha is not None:
            alphas[f"{prefix}alpha"] = np.array([group.alpha], dtype=np.float32)
            for site in group.sites:
                shapes |= {f"{prefix}{site}.u": (group.rank,), f"{prefix}{site}.v": (n_out,)}
    return shapes, alphas
