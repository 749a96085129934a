"""Adapters: a placement says which sites carry one, a patch holds the trained factors.

LoRA (Hu et al. 2021, arXiv:2106.09685): the weight of an adapted site becomes ``W + (alpha / rank)
* B @ A``. Sites of one shape may be tied: they share one pair and each has two vectors, ``W +
(alpha / rank) * diag(v) @ B @ diag(u) @ A`` (docs/methods.md#tied-pairs). A tied pair is one pair
everywhere: in memory, on disk, on the wire.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fleettune.adapters.factors import Array, Factors, Tie, TiedPair
from fleettune.shapes import MODULES, Shapes, Site, order, parse_site

_PARENT = {module: "self_attn" if module in "qkvo" else "mlp" for module in MODULES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The sites of a backbone that carry an adapter, of their own or shared with other sites.

    Attributes:
        sites: The sites with an adapter of their own, in forward order.
        rank: Rank of each of those.
        alpha: Their alpha; the update is scaled by ``alpha / rank``.
        ties: The sites that share, each in one tie and not among `sites`.
    """

    sites: tuple[Site, ...]
    rank: int
    alpha: float
    ties: tuple[Tie, ...] = ()

    @property
    def ranks(self) -> dict[Site, int]:
        """The rank at every adapted site, dedicated or shared, in forward order."""
        found = dict.fromkeys(self.sites, self.rank)
        found |= {site: tie.rank for tie in self.ties for site in tie.sites}
        return {site: found[site] for site in sorted(found, key=order)}

    @property
    def shared(self) -> tuple[frozenset[Site], ...]:
        """The sites of every tie."""
        return tuple(frozenset(tie.sites) for tie in self.ties)

    def size_bytes(self, shapes: Shapes) -> int:
        """Returns the bytes of a patch with this placement, as fp32; a tied pair counts once."""
        matrices = shapes.matrices()
        dedicated = sum(4 * self.rank * sum(matrices[site.module]) for site in self.sites)
        return dedicated + sum(tie.size_bytes(shapes) for tie in self.ties)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patch:
    """The trained adapters of one device for one release.

    Attributes:
        release: Version of the release that it was tuned on.
        alpha: LoRA's alpha at the sites with factors of their own.
        factors: Those factors, by site.
        ties: Pairs that several sites share; no site is in two of them or in `factors` as well.
    """

    release: int
    alpha: float
    factors: Mapping[Site, Factors]
    ties: tuple[TiedPair, ...] = ()

    def __post_init__(self) -> None:
        sites = [*self.factors, *(site for tied in self.ties for site in tied.vectors)]
        if len(set(sites)) < len(sites):
            raise ValueError(f"a patch must adapt each site once, got {sorted(map(str, sites))}")

    @property
    def size_bytes(self) -> int:
        """Bytes as stored and as sent: every factor in fp32, a tied pair once."""
        return sum(array.nbytes for array in to_arrays(self).values())

    @property
    def ranks(self) -> dict[Site, int]:
        """The rank at every adapted site, in forward order."""
        found = {site: item.a.shape[0] for site, item in self.factors.items()}
        found |= {site: tied.pair.a.shape[0] for tied in self.ties for site in tied.vectors}
        return {site: found[site] for site in sorted(found, key=order)}

    @property
    def shared(self) -> tuple[frozenset[Site], ...]:
        """The sites of every tied pair."""
        return tuple(frozenset(tied.vectors) for tied in self.ties)

    def untie(self) -> Patch:
        """Returns a patch that computes the same with factors of its own at every site."""
        if not self.ties:
            return self
        found = dict(self.factors)
        for tied in self.ties:
            found |= tied.factors(self.alpha)
        factors = {site: found[site] for site in sorted(found, key=order)}
        return replace(self, factors=factors, ties=())

    def scale(self, site: Site) -> float:
        """Returns ``alpha / rank`` of a site with factors of its own."""
        return self.alpha / self.factors[site].a.shape[0]

    def dense(self, site: Site) -> Array:
        """Returns the effective update of a site with factors of its own, ``(n_out, n_in)``."""
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
        for tied in self.ties:
            for name, array in tied.arrays().items():
                digest.update(f"tied {name} {array.shape}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()


def placement_of(patch: Patch) -> Placement | None:
    """Returns where a patch has its adapters; None if factors of its own differ in rank."""
    ties = tuple(
        Tie(sites=tuple(tied.vectors), rank=tied.pair.a.shape[0], alpha=tied.alpha)
        for tied in patch.ties
    )
    ranks = {item.a.shape[0] for item in patch.factors.values()} or {tie.rank for tie in ties}
    if len(ranks) != 1:
        return None
    sites = tuple(sorted(patch.factors, key=order))
    return Placement(sites=sites, rank=ranks.pop(), alpha=patch.alpha, ties=ties)


def new_patch(
    placement: Placement, shapes: Shapes, release: int, rng: np.random.Generator
) -> Patch:
    """Returns an untrained patch: A uniform in ±1/sqrt(n_in) (Kaiming, a = sqrt 5), B zero.

    The vectors of tied sites are ones.

    Raises:
        ValueError: If the rank is larger than a matrix allows, or tied sites differ in shape.
    """
    matrices = shapes.matrices()
    factors = {
        site: new_factors(*matrices[site.module], placement.rank, rng)
        for site in sorted(placement.sites, key=order)
    }
    ties = tuple(_untrained_tie(tie, shapes, rng) for tie in placement.ties)
    return Patch(release=release, alpha=placement.alpha, factors=factors, ties=ties)


def new_factors(n_in: int, n_out: int, rank: int, rng: np.random.Generator) -> Factors:
    """Returns the untrained factors of one site.

    Raises:
        ValueError: If the rank is larger than the matrix allows.
    """
    check_rank(rank, n_in, n_out)
    bound = 1 / np.sqrt(n_in)
    a = rng.uniform(-bound, bound, size=(rank, n_in)).astype(np.float32)
    return Factors(a=a, b=np.zeros((n_out, rank), dtype=np.float32))


def _untrained_tie(tie: Tie, shapes: Shapes, rng: np.random.Generator) -> TiedPair:
    sizes = {shapes.matrices()[site.module] for site in tie.sites}
    if len(sizes) > 1:
        raise ValueError(f"tied sites must have one shape, got {sorted(sizes)} in {tie.sites}")
    n_in, n_out = sizes.pop()
    vectors = {
        site: (np.ones(tie.rank, dtype=np.float32), np.ones(n_out, dtype=np.float32))
        for site in sorted(tie.sites, key=order)
    }
    return TiedPair(pair=new_factors(n_in, n_out, tie.rank, rng), alpha=tie.alpha, vectors=vectors)


def check_rank(rank: int, n_in: int, n_out: int) -> None:
    """Raises ValueError if a rank does not fit a matrix of ``n_out`` by ``n_in``."""
    if not 1 <= rank <= min(n_in, n_out):
        raise ValueError(
            f"placement.rank must be between 1 and {min(n_in, n_out)}, the smaller side of a "
            f"{n_out} x {n_in} matrix of this model, got {rank}"
        )


def to_arrays(patch: Patch) -> dict[str, Array]:
    """Returns the factors under stable names, ``3.q.a`` and ``3.q.b``, a tied pair's once.

    A tie's arrays begin with its number: ``tie0/alpha``, ``tie0/a``, ``tie0/b``, and for each site
    ``tie0/3.q.u`` and ``tie0/3.q.v``.
    """
    named: dict[str, Array] = {}
    for site in sorted(patch.factors, key=order):
        named[f"{site}.a"] = patch.factors[site].a
        named[f"{site}.b"] = patch.factors[site].b
    for index, tied in enumerate(patch.ties):
        named |= {f"tie{index}/{name}": array for name, array in tied.arrays().items()}
    return named


def from_arrays(arrays: Mapping[str, Array], release: int, alpha: float) -> Patch:
    """Returns the patch that `to_arrays` wrote.

    Raises:
        ValueError: If a name is no factor of a site, a factor is missing or empty, or one is not in
            single precision.
    """
    for name, array in arrays.items():
        if array.dtype != np.float32 or not array.size:
            told = f"{array.dtype} of shape {array.shape}"
            raise ValueError(f"{name} of a patch must be float32 and not empty, is {told}")
    own = {name: array for name, array in arrays.items() if "/" not in name}
    sites = _complete(own, "ab", ())
    return Patch(
        release=release,
        alpha=alpha,
        factors={s: Factors(a=own[f"{s}.a"], b=own[f"{s}.b"]) for s in sites},
        ties=tuple(map(_tied, _tie_parts(arrays))),
    )


def _tie_parts(arrays: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Returns the arrays of every tie by their names within it, in the order of the ties."""
    parts: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        tie, slash, rest = name.partition("/")
        if slash:
            parts.setdefault(tie, {})[rest] = array
    wanted = [f"tie{index}" for index in range(len(parts))]
    if set(wanted) != set(parts):
        raise ValueError(f"ties of a patch must be numbered from 0, got {sorted(parts)}")
    return [parts[tie] for tie in wanted]


def _tied(arrays: Mapping[str, Array]) -> TiedPair:
    sites = _complete(arrays, "uv", ("alpha", "a", "b"))
    if arrays["alpha"].shape != (1,):
        raise ValueError(f"a tie must have one alpha, got {arrays['alpha'].shape}")
    return TiedPair(
        pair=Factors(a=arrays["a"], b=arrays["b"]),
        alpha=float(arrays["alpha"][0]),
        vectors={site: (arrays[f"{site}.u"], arrays[f"{site}.v"]) for site in sites},
    )


def _complete(arrays: Mapping[str, Array], sides: str, beside: Sequence[str]) -> list[Site]:
    """Returns the sites that arrays are about, after checking that nothing is missing or extra."""
    sites = _sites(name.rpartition(".")[0] for name in arrays if name not in beside)
    pairs = itertools.product(sites, sides)
    wanted = [*beside, *(f"{site}.{side}" for site, side in pairs)]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(f"a patch must hold both factors of every site, missing {missing}")
    unknown = sorted(set(arrays) - set(wanted))
    if unknown:
        raise ValueError(f"a patch may hold the factors of sites only, got {unknown}")
    return sites


def _sites(names: Iterable[str]) -> list[Site]:
    return sorted({parse_site(name) for name in names}, key=order)


def peft_name(site: Site) -> str:
    """Returns the name of a site's matrix in a Llama-like model of transformers."""
    return f"model.layers.{site.layer}.{_PARENT[site.module]}.{site.module}_proj"


def peft_key(site: Site, side: str) -> str:
    """Returns PEFT's state-dict key of one factor; `side` is ``A`` or ``B``."""
    return f"base_model.model.{peft_name(site)}.lora_{side}.weight"


def to_peft(patch: Patch) -> dict[str, Array]:
    """Returns the patch as a PEFT LoRA state dict (``adapter_model.safetensors`` keys).

    PEFT knows no ties: every tied site gets factors of its own, ``v * B * u`` and ``A``.
    """
    plain = patch.untie().factors
    return {
        peft_key(site, side): array
        for site in sorted(plain, key=order)
        for side, array in (("A", plain[site].a), ("B", plain[site].b))
    }
