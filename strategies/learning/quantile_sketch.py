"""Quantile sketches of a fleet's numbers: small, mergeable without loss, with a stated error.

DDSketch (Masson, Rim and Lee 2019, arXiv:1908.10693): a number falls into the bucket
``ceil(log_gamma |x|)`` with ``gamma = (1 + alpha) / (1 - alpha)``, and every quantile comes out
within the relative error alpha (eq. 2 and prop. 3). Negative numbers have buckets of their own, and
numbers below `ZERO` count as zero. A sketch is its counts, so merging adds integers: in any order,
over any split, it is the sketch of all numbers together and nothing is lost. The published library
(`ddsketch` on PyPI) holds sketches that change in place and by default bounds their size by
collapsing buckets, which makes a result depend on the order; hence these few lines instead.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

ZERO = 1e-30
"""Numbers of smaller magnitude count as zero; the error there is absolute, below this."""
LARGEST = 1e300
"""Largest magnitude, so that a bucket's middle is a finite number."""

Buckets = tuple[tuple[int, int], ...]
"""(Number of a bucket, count above 0), ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """Counts of numbers by magnitude; with one alpha a commutative monoid, `Sketch(alpha)` is zero.

    Attributes:
        alpha: Largest relative error of a quantile, above 0 and at most 0.5.
        positive: Buckets of the numbers above zero.
        negative: Buckets of the numbers below zero, by magnitude.
        zeros: Numbers that count as zero.
    """

    alpha: float = 0.01
    positive: Buckets = ()
    negative: Buckets = ()
    zeros: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 0.5:
            raise ValueError(f"alpha must be > 0 and <= 0.5, got {self.alpha}")

    def __add__(self, other: Sketch) -> Sketch:
        if self.alpha != other.alpha:
            raise ValueError(f"sketches must have one alpha, got {self.alpha} and {other.alpha}")
        return Sketch(
            alpha=self.alpha,
            positive=_merge(self.positive, other.positive),
            negative=_merge(self.negative, other.negative),
            zeros=self.zeros + other.zeros,
        )

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return self.zeros + sum(count for _, count in (*self.positive, *self.negative))

    def quantile(self, share: float) -> float:
        """Returns the number of rank ``floor(share (count - 1))``, 0-based, within `alpha`.

        Raises:
            ValueError: If the share is not from 0 to 1, or the sketch is empty.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a quantile's share must be from 0 to 1, got {share}")
        if not self.count:
            raise ValueError("an empty sketch has no quantiles")
        middles, counts = zip(*self._ascending(), strict=True)
        rank = math.floor(share * (self.count - 1))
        return middles[bisect_right(list(accumulate(counts)), rank)]

    def _ascending(self) -> Iterator[tuple[float, int]]:
        """Yields the middle and the count of every bucket, from the lowest numbers up."""
        width = _log_gamma(self.alpha)
        # the middle 2 gamma^i / (gamma + 1) is (1 - alpha) gamma^i
        scale = math.log1p(-self.alpha)
        for bucket, count in reversed(self.negative):
            yield -math.exp(bucket * width + scale), count
        if self.zeros:
            yield 0.0, self.zeros
        for bucket, count in self.positive:
            yield math.exp(bucket * width + scale), count


def sketch_values(values: Iterable[float], alpha: float = 0.01) -> Sketch:
    """Returns the sketch of some numbers, read once; it is the sum of the sketches of each.

    Raises:
        ValueError: If a number is not finite or beyond `LARGEST`.
    """
    width = _log_gamma(Sketch(alpha=alpha).alpha)
    positive: Counter[int] = Counter()
    negative: Counter[int] = Counter()
    zeros = 0
    for value in values:
        size = abs(value)
        if not size <= LARGEST:
            raise ValueError(f"a sketched number must be within +-{LARGEST:g}, got {value}")
        if size < ZERO:
            zeros += 1
        else:
            side = positive if value > 0 else negative
            side[math.ceil(math.log(size) / width)] += 1
    return Sketch(
        alpha=alpha,
        positive=tuple(sorted(positive.items())),
        negative=tuple(sorted(negative.items())),
        zeros=zeros,
    )


def _log_gamma(alpha: float) -> float:
    return math.log1p(alpha) - math.log1p(-alpha)


def _merge(mine: Buckets, theirs: Buckets) -> Buckets:
    added = Counter(dict(mine))
    added.update(dict(theirs))
    return tuple(sorted(added.items()))
