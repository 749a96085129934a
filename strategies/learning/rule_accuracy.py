"""How well scores separate what retuning would have helped from what it would not, with weights.

A sample stands for `weight` devices. Sums run over samples in the order of their own values, so the
order in which they were given changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple


class ScoredSample(NamedTuple):
    """A score, whether retuning helped, and how many devices that stands for."""

    score: float
    helped: bool
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of a sample that was helped and one that was not; they add.

    Attributes:
        concordant: Summed weight of the pairs whose helped sample scores higher, ties counted half.
        every: Summed weight of all pairs.
    """

    concordant: float = 0.0
    every: float = 0.0

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(concordant=self.concordant + other.concordant, every=self.every + other.every)

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve; None where there is no pair."""
        return self.concordant / self.every if self.every else None


def weigh_pairs(samples: Iterable[ScoredSample]) -> Pairs:
    """Returns the weighted pairs, ties by mid-rank, in one pass over the sorted samples.

    The area is ``sum w_i w_j (1[s_i > s_j] + 1[s_i = s_j] / 2) / sum w_i w_j`` over helped i and
    other j: Mann and Whitney's statistic (Hanley and McNeil 1982), with weights.
    """
    concordant: list[float] = []
    helped: list[float] = []
    below = 0.0
    for _, tied in groupby(sorted(samples), key=lambda sample: sample.score):
        group = list(tied)
        up = math.fsum(sample.weight for sample in group if sample.helped)
        down = math.fsum(sample.weight for sample in group if not sample.helped)
        concordant.append(up * (below + down / 2))
        helped.append(up)
        below += down
    return Pairs(concordant=math.fsum(concordant), every=math.fsum(helped) * below)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRates:
    """What a threshold gets wrong.

    Attributes:
        false_reuse: Share of the devices that retuning would have helped whose score asks for
            reuse; None where it would have helped nobody.
        false_retune: Share of the others whose score asks for a retune; None where there are none.
    """

    false_reuse: float | None
    false_retune: float | None


def error_rates(samples: Sequence[ScoredSample], threshold: float) -> ErrorRates:
    """Returns the weighted error rates of retuning where the score is above a threshold."""
    helped = [sample for sample in samples if sample.helped]
    others = [sample for sample in samples if not sample.helped]
    return ErrorRates(
        false_reuse=_share(helped, [sample.score <= threshold for sample in helped]),
        false_retune=_share(others, [sample.score > threshold for sample in others]),
    )


def effective_size(weights: Iterable[float]) -> float:
    """Returns how many equal weights say as much: ``(sum w)^2 / sum w^2`` (Kish 1965)."""
    every = list(weights)
    squares = math.fsum(weight * weight for weight in every)
    return math.fsum(every) ** 2 / squares if squares else 0.0


def _share(samples: Sequence[ScoredSample], marks: Sequence[bool]) -> float | None:
    total = math.fsum(sample.weight for sample in samples)
    marked = (sample.weight for sample, mark in zip(samples, marks, strict=True) if mark)
    return math.fsum(marked) / total if total else None
