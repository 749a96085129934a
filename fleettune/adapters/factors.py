"""Factors: the pair of small matrices of one site, and pairs that several sites share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleettune.shapes import Shapes, Site, order

Array = NDArray[np.float32]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """Sites of one shape that share one pair of factors.

    Attributes:
        sites: At least two, in forward order.
        rank: Rank of the pair.
        alpha: Its alpha, a number that single precision holds, as it travels with the factors.

    Raises:
        ValueError: If there is nobody to share with, or alpha would be rounded.
    """

    sites: tuple[Site, ...]
    rank: int
    alpha: float

    def __post_init__(self) -> None:
        if len(set(self.sites)) < max(2, len(self.sites)):
            raise ValueError(f"a tie must have two or more sites, each once, got {self.sites}")
        check_tied_alpha(self.alpha)

    def size_bytes(self, shapes: Shapes) -> int:
        """Returns the bytes of the pair, its alpha and the vectors of every site, as fp32."""
        n_in, n_out = shapes.matrices()[self.sites[0].module]
        return 4 * (self.rank * (n_in + n_out) + len(self.sites) * (self.rank + n_out) + 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TiedPair:
    """One pair of factors with the vectors of every site that uses it.

    Attributes:
        pair: The shared factors.
        alpha: Alpha of the pair.
        vectors: By site: ``u`` of shape ``(rank,)`` and ``v`` of shape ``(n_out,)``.

    Raises:
        ValueError: If a vector does not fit the pair, or alpha would be rounded.
    """

    pair: Factors
    alpha: float
    vectors: Mapping[Site, tuple[Array, Array]]

    def __post_init__(self) -> None:
        check_tied_alpha(self.alpha)
        n_out, rank = self.pair.b.shape
        for site, (u, v) in self.vectors.items():
            if u.shape != (rank,) or v.shape != (n_out,):
                raise ValueError(
                    f"u and v of {site} must have shapes {(rank,)} and {(n_out,)}, "
                    f"got {u.shape} and {v.shape}"
                )

    def arrays(self) -> dict[str, Array]:
        """Returns everything that is stored of it, under stable names."""
        named = {"alpha": np.array([self.alpha], dtype=np.float32)}
        named |= {"a": self.pair.a, "b": self.pair.b}
        for site in sorted(self.vectors, key=order):
            named[f"{site}.u"], named[f"{site}.v"] = self.vectors[site]
        return named

    def factors(self, alpha: float) -> dict[Site, Factors]:
        """Returns every site's own factors, scaled for a patch of another alpha."""
        more = np.float32(self.alpha / alpha)
        return {
            site: Factors(a=self.pair.a, b=more * v[:, None] * self.pair.b * u)
            for site, (u, v) in self.vectors.items()
        }


def check_tied_alpha(alpha: float) -> None:
    """Raises ValueError if an alpha is not > 0 or would be rounded to single precision."""
    if not alpha > 0 or float(np.float32(alpha)) != alpha:
        raise ValueError(f"a tied alpha must be > 0 and exact in single precision, got {alpha}")
