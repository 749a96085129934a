"""Adapters: a placement says which sites carry one, a patch holds the trained factors.

LoRA (Hu et al. 2021, arXiv:2106.09685): the weight of an adapted site becomes
``W + (alpha / rank) * B @ A``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleettune.sites import MODULES, Site, parse_site
from fleettune.work import Shapes

Array = NDArray[np.float32]

_PARENT = {module: "self_attn" if module in "qkvo" else "mlp" for module in MODULES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which sites of a backbone carry an adapter.

    Attributes:
        sites: The adapted sites, in forward order.
        rank: Rank of every adapter.
        alpha: LoRA's alpha; the update is scaled by ``alpha / rank``.
    """

    sites: tuple[Site, ...]
    rank: int
    alpha: float

    def size_bytes(self, shapes: Shapes) -> int:
        """Returns the bytes of a patch with this placement, as fp32."""
        matrices = shapes.matrices()
        return sum(4 * self.rank * sum(matrices[site.module]) for site in self.sites)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factors:
    """The two factors of one site: ``a`` is ``(rank, n_in)``, ``b`` is ``(n_out, rank)``."""

    a: Array
    b: Array

    def __post_init__(self) -> None:
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise ValueError(
                "factors must be (rank, n_in) and (n_out, rank), got "
                f"{self.a.shape} and {self.b.shape}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patch:
    """The trained adapters of one device for one release.

    Attributes:
        release: Version of the release that it was tuned on.
        alpha: LoRA's alpha.
        factors: Factors by site.
    """

    release: int
    alpha: float
    factors: Mapping[Site, Factors]

    @property
    def size_bytes(self) -> int:
        """Bytes as stored and as sent: every factor in fp32."""
        return sum(item.a.nbytes + item.b.nbytes for item in self.factors.values())

    def scale(self, site: Site) -> float:
        """Returns ``alpha / rank`` of one site."""
        return self.alpha / self.factors[site].a.shape[0]

    def dense(self, site: Site) -> Array:
        """Returns the effective update of one site, ``(n_out, n_in)``."""
        item = self.factors[site]
        return np.asarray(np.float32(self.scale(site)) * (item.b @ item.a), dtype=np.float32)

    def digest(self) -> str:
        """Returns the SHA-256 of everything that decides what the patch computes."""
        digest = hashlib.sha256(repr(self.alpha).encode())
        for site in sorted(self.factors, key=order):
            item = self.factors[site]
            digest.update(f"{site} {item.a.shape} {item.b.shape}".encode())
            digest.update(item.a.tobytes())
            digest.update(item.b.tobytes())
        return digest.hexdigest()


def order(site: Site) -> tuple[int, int]:
    """Returns the place of a site in a forward pass, for sorting."""
    return site.layer, MODULES.index(site.module)


def new_patch(
    placement: Placement, shapes: Shapes, release: int, rng: np.random.Generator
) -> Patch:
    """Returns an untrained patch: A uniform in ±1/sqrt(n_in) (Kaiming, a = sqrt 5), B zero.

    Raises:
        ValueError: If the rank is larger than a matrix allows.
    """
    matrices = shapes.matrices()
    factors: dict[Site, Factors] = {}
    for site in sorted(placement.sites, key=order):
        n_in, n_out = matrices[site.module]
        check_rank(placement.rank, n_in, n_out)
        bound = 1 / np.sqrt(n_in)
        a = rng.uniform(-bound, bound, size=(placement.rank, n_in)).astype(np.float32)
        factors[site] = Factors(a=a, b=np.zeros((n_out, placement.rank), dtype=np.float32))
    return Patch(release=release, alpha=placement.alpha, factors=factors)


def check_rank(rank: int, n_in: int, n_out: int) -> None:
    """Raises ValueError if a rank does not fit a matrix of ``n_out`` by ``n_in``."""
    if not 1 <= rank <= min(n_in, n_out):
        raise ValueError(
            f"placement.rank must be between 1 and {min(n_in, n_out)}, the smaller side of a "
            f"{n_out} x {n_in} matrix of this model, got {rank}"
        )


def to_arrays(patch: Patch) -> dict[str, Array]:
    """Returns the factors under stable names, ``3.q.a`` and ``3.q.b``."""
    named: dict[str, Array] = {}
    for site in sorted(patch.factors, key=order):
        named[f"{site}.a"] = patch.factors[site].a
        named[f"{site}.b"] = patch.factors[site].b
    return named


def from_arrays(arrays: Mapping[str, Array], release: int, alpha: float) -> Patch:
    """Returns the patch that `to_arrays` wrote.

    Raises:
        ValueError: If a name is no factor of a site or a factor is missing.
    """
    sites = _sites(name.rpartition(".")[0] for name in arrays)
    wanted = [f"{site}.{side}" for site in sites for side in "ab"]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(f"a patch must hold both factors of every site, missing {missing}")
    unknown = sorted(set(arrays) - set(wanted))
    if unknown:
        raise ValueError(f"a patch may hold the factors of sites only, got {unknown}")
    return Patch(
        release=release,
        alpha=alpha,
        factors={s: Factors(a=arrays[f"{s}.a"], b=arrays[f"{s}.b"]) for s in sites},
    )


def _sites(names: Iterable[str]) -> list[Site]:
    return sorted({parse_site(name) for name in names}, key=order)


def peft_key(site: Site, side: str) -> str:
    """Returns PEFT's state-dict key of one factor; `side` is ``A`` or ``B``."""
    return (
        f"base_model.model.model.layers.{site.layer}.{_PARENT[site.module]}."
        f"{site.module}_proj.lora_{side}.weight"
    )


def to_peft(patch: Patch) -> dict[str, Array]:
    """Returns the patch as a PEFT LoRA state dict (``adapter_model.safetensors`` keys)."""
    return {
        peft_key(site, side): array
        for site in sorted(patch.factors, key=order)
        for side, array in (("A", patch.factors[site].a), ("B", patch.factors[site].b))
    }
