"""Shapes of a Llama-like decoder, and its sites: the weight matrices that an adapter can change.

Work, memory, bytes and the size of an adapter follow from these shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeAlias

MODULES = ("q", "k", "v", "o", "gate", "up", "down")
"""Module types of a Llama-like layer, in the order in which a forward pass meets them."""


_MOST = 1 << 24
"""Beyond any size of a model: more would only claim memory."""


class Site(NamedTuple):
    """One weight matrix: its layer (0 is nearest the input) and its module type."""

    layer: int
    module: str

    def __str__(self) -> str:
        return f"{self.layer}.{self.module}"


def parse_site(text: str) -> Site:
    """Returns the site that `str(site)` wrote, for example ``3.q``.

    Raises:
        ValueError: If the text is not ``layer.module`` with a known module.
    """
    layer, _, module = text.partition(".")
    if not layer.isdecimal() or module not in MODULES:
        raise ValueError(f"a site must read layer.module with module in {MODULES}, got {text!r}")
    return Site(int(layer), module)


def order(site: Site) -> tuple[int, int]:
    """Returns the position of a site in a forward pass: a key to sort sites by."""
    return site.layer, MODULES.index(site.module)


Ranks: TypeAlias = Mapping[Site, int]
"""Rank of the adapter at each adapted site; a site that is absent is not adapted."""


Groups: TypeAlias = Sequence[AbstractSet[Site]]
"""Groups of sites; those of a group share one pair of adapter factors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Sizes of a Llama-like decoder with tied embeddings: all that work depends on."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 1 <= getattr(self, field.name) <= _MOST:
                told = f"{field.name} must be from 1 to {_MOST}"
                raise ValueError(f"{told}, got {getattr(self, field.name)}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide {self.heads} heads, got {self.kv_heads}")

    def matrices(self) -> Mapping[str, tuple[int, int]]:
        """Returns (inputs, outputs) of each module of a layer."""
        d, m = self.hidden, self.ffn
        q, k = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sizes = ((d, q), (d, k), (d, k), (q, d), (d, m), (d, m), (m, d))
        return dict(zip(MODULES, sizes, strict=True))

    @property
    def linear_parameters(self) -> int:
        """Weights of the matrices of all layers: no embedding, no norm."""
        return self.layers * sum(math.prod(size) for size in self.matrices().values())

    @property
    def parameters(self) -> int:
        """All weights: matrices, norms and the embedding, which the head shares, once."""
        return self.linear_parameters + self.hidden * (self.vocab + 2 * self.layers + 1)

    def adapter_parameters(self, ranks: Ranks, shared: Groups = ()) -> int:
        """Returns the weights of checked adapters: rank * (inputs + outputs) per site.

        The sites of a group in `shared` use one pair of factors, which is counted once. That
        changes what is stored, sent and optimised; each site computes as with a pair of its own.
        """
        matrices, known = self.matrices(), range(self.layers)
        for site, rank in ranks.items():
            if site.module not in matrices or site.layer not in known or rank < 1:
                raise ValueError(f"site must be in {known} with rank >= 1, got {site}, rank {rank}")
        weights = {site: rank * sum(matrices[site.module]) for site, rank in ranks.items()}
        members = [site for group in shared for site in group]
        if len(set(members)) < len(members) or not weights.keys() >= set(members):
            raise ValueError(f"shared groups must be disjoint and adapted, got {shared}")
        kinds = [{(matrices[site.module], ranks[site]) for site in group} for group in shared]
        if any(len(kind) != 1 for kind in kinds):
            raise ValueError(f"sites that share a pair need one size and rank, got {kinds}")
        repeated = sum(sum(map(weights.__getitem__, sorted(group)[1:])) for group in shared)
        return sum(weights.values()) - repeated

    def kept_parameters(self, ranks: Ranks, shared: Groups = ()) -> int:
        """Returns the weights that are stored, sent and optimised: a shared pair once.

        Every site of a group adds its two scale vectors, rank and outputs
        (docs/methods.md#tied-pairs).
        """
        matrices = self.matrices()
        vectors = [ranks[site] + matrices[site.module][1] for group in shared for site in group]
        return self.adapter_parameters(ranks, shared) + sum(vectors)
