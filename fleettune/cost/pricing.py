"""Pricing: the model whose shapes decide joules, seconds, bytes and memory.

Losses, gradients and text come from the simulated backbone. What they would cost comes from the
shapes of a model that a phone would really run: the same module types and ranks at the same
relative depth, its own release size, and its own token counts. At the built-in model's shapes a
tune costs a few downloads, at those of Llama-3.2-1B more than fifty; which one is priced decides
what saves energy.

Quotas stay in simulated bytes: text is the same text, and patches and caches are held against the
quota at their simulated size, which is to say that the priced device's quota for them is larger by
the ratio of the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleettune.cost.work import Work
from fleettune.shapes import Groups, Ranks, Shapes, Site

OWN = "own"
"""Priced at the simulated backbone's own shapes."""

TARGETS: Mapping[str, Shapes] = {
    "smollm2-360m": Shapes(
        hidden=960, layers=32, heads=15, kv_heads=5, head_dim=64, ffn=2560, vocab=49152
    ),
    "qwen2.5-0.5b": Shapes(
        hidden=896, layers=24, heads=14, kv_heads=2, head_dim=64, ffn=4864, vocab=151936
    ),
    "llama-3.2-1b": Shapes(
        hidden=2048, layers=16, heads=32, kv_heads=8, head_dim=64, ffn=8192, vocab=128256
    ),
    "llama-3.2-3b": Shapes(
        hidden=3072, layers=28, heads=24, kv_heads=8, head_dim=128, ffn=8192, vocab=128256
    ),
}
"""Shapes from each model's published ``config.json``; all four share embeddings with the head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedModel:
    """The model that a simulated backbone stands for on the bill.

    Attributes:
        model: ``own`` or a name in `TARGETS`.
        tokens_ratio: Its tokens per simulated token for the same text; not used by ``own``.
        bits_per_weight: Stored size of a frozen weight: on the wire, in storage, in memory, and in
            the traffic of every pass. Effective bandwidths were fitted on 4-bit models.
    """

    model: str = OWN
    tokens_ratio: float = 1.0
    bits_per_weight: float = 16.0

    def __post_init__(self) -> None:
        if self.model != OWN and self.model not in TARGETS:
            known = ", ".join((OWN, *TARGETS))
            raise ValueError(f"cost.model must be one of {known}, got {self.model!r}")
        if not 0 < self.tokens_ratio <= 10:
            raise ValueError(f"cost.tokens_ratio must be > 0 and <= 10, got {self.tokens_ratio}")
        if not 1 <= self.bits_per_weight <= 32:
            raise ValueError(
                f"cost.bits_per_weight must be from 1 to 32 bits, got {self.bits_per_weight}"
            )

    @property
    def bytes_per_weight(self) -> float:
        """Bytes of a frozen weight."""
        return self.bits_per_weight / 8

    def shapes(self, own: Shapes) -> Shapes:
        """Returns the shapes that are priced."""
        return TARGETS.get(self.model, own)

    def ranks(self, own: Shapes, ranks: Ranks) -> Ranks:
        """Returns the adapters at the same relative depth of the priced model.

        Layer ``j`` of it stands for simulated layer ``floor(j * L / L')``. A priced model with
        fewer layers keeps the deeper rank where two simulated layers fall on one of its own.
        """
        layers = self.shapes(own).layers
        if self.model == OWN:
            return ranks
        found: dict[Site, int] = {}
        for site, rank in ranks.items():
            for layer in self._layers_for(site.layer, own.layers, layers):
                there = Site(layer, site.module)
                found[there] = max(rank, found.get(there, 0))
        return found

    def tokens(self, count: int) -> int:
        """Returns how many tokens of the priced model a text of simulated tokens is."""
        return count if self.model == OWN else math.ceil(count * self.tokens_ratio)

    def lengths(self, counts: Sequence[int]) -> list[int]:
        """Returns `tokens` of each."""
        return [self.tokens(count) for count in counts]

    def release_bytes(self, own: Shapes, size_bytes: float, bits: float | None = None) -> float:
        """Returns the size of a release: as it is sent for ``own``, else by its weights.

        Args:
            own: Shapes of the simulated backbone.
            size_bytes: Bytes of a full download of it.
            bits: Bits of a weight of a quantised release, where a full one has more; None for
                releases that are not.
        """
        if self.model == OWN:
            return size_bytes
        sent = self.bits_per_weight if bits is None else min(bits, self.bits_per_weight)
        return self.shapes(own).parameters * (sent / 8)

    def delta_bytes(
        self, own: Shapes, size_bytes: float, delta_bytes: float, bits: float | None = None
    ) -> float:
        """Returns the size of a delta: the same share of a full download (our convention).

        For low-rank factors that is an upper bound, since at a fixed rank their share falls with
        the width. Arguments as for `release_bytes`; `delta_bytes` are those of the simulated delta.
        """
        if self.model == OWN:
            return delta_bytes
        return self.release_bytes(own, size_bytes, bits) * (delta_bytes / size_bytes)

    def shared(self, own: Shapes, ranks: Ranks, groups: Groups) -> list[frozenset[Site]]:
        """Returns groups of sites that share a pair at the same relative depth.

        Where several simulated layers fall on one of the priced model, a site with a pair of its
        own keeps that, and one of two groups belongs to the first.
        """
        if self.model == OWN:
            return [frozenset(group) for group in groups]
        there = self.ranks(own, ranks)
        members = {site for group in groups for site in group}
        taken = set(self.ranks(own, {s: r for s, r in ranks.items() if s not in members}))
        found: list[frozenset[Site]] = []
        for group in groups:
            placed = self.ranks(own, {site: ranks[site] for site in group})
            free = {site for site in placed if there[site] == placed[site]} - taken
            taken |= free
            if free:
                found.append(frozenset(free))
        return found

    def patch_bytes(
        self, own: Shapes, ranks: Ranks, size_bytes: float, shared: Groups = ()
    ) -> float:
        """Returns the size of an adapter delta: the same bytes per weight that it holds."""
        if self.model == OWN or not ranks:
            return size_bytes
        groups = self.shared(own, ranks, shared)
        priced = self.shapes(own).kept_parameters(self.ranks(own, ranks), groups)
        return size_bytes * priced / own.kept_parameters(ranks, shared)

    def dense_work(self, own: Shapes, ranks: Ranks, work: Work) -> Work:
        """Returns work on whole adapted matrices, by the ratio of their entries."""
        if self.model == OWN or not ranks:
            return work
        return work * (_entries(self.shapes(own), self.ranks(own, ranks)) / _entries(own, ranks))

    @staticmethod
    def _layers_for(layer: int, own: int, priced: int) -> range | tuple[int]:
        first, end = -(-layer * priced // own), -(-(layer + 1) * priced // own)
        return range(first, end) if end > first else (layer * priced // own,)


def _entries(shapes: Shapes, ranks: Ranks) -> int:
    matrices = shapes.matrices()
    return sum(math.prod(matrices[site.module]) for site in ranks)
