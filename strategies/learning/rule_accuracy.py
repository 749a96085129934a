"""How well a rule tells devices that retuning helps from the others.

A rule is judged by the retunes that were reported, each weighted by one over its propensity, as in
`strategies.learning.calibration`. Judged by the reports that it was fitted to it looks a little too
good; judged by those of the release that it was shipped with, it does not. Sums run over samples in
the order of their own values, so the order in which they were given changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from strategies.learning.calibration import (
    RetuneRule,
    effective_size,
    helps,
    known_retunes,
    retune_weight,
)
from strategies.learning.decision_reports import DecisionReport


class ScoredSample(NamedTuple):
    """A score, whether retuning helped, and how many devices that stands for."""

    score: float
    helped: bool
    weight: float = 1.0


def roc_auc(samples: Iterable[ScoredSample]) -> float | None:
    """Returns the weighted area under the ROC curve, ties counted half; None if one kind lacks.

    The area is ``sum w_i w_j (1[s_i > s_j] + 1[s_i = s_j] / 2) / sum w_i w_j`` over helped i and
    other j: Mann and Whitney's statistic (Hanley and McNeil 1982), with weights, in one pass over
    the sorted samples.
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
    every = math.fsum(helped) * below
    return math.fsum(concordant) / every if every else None


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


def _share(samples: Sequence[ScoredSample], marks: Sequence[bool]) -> float | None:
    total = math.fsum(sample.weight for sample in samples)
    marked = (sample.weight for sample, mark in zip(samples, marks, strict=True) if mark)
    return math.fsum(marked) / total if total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """How a rule did; every number is weighted to stand for all devices that decided.

    Attributes:
        devices: Retunes with a known gain.
        effective_devices: Kish's effective number of them after weighting.
        auc: Area under the ROC curve of the probability against "gained more than the margin".
        errors: False reuse and false retune rates at the rule's threshold.
    """

    devices: int
    effective_devices: float
    auc: float | None
    errors: ErrorRates


def assess(
    rule: RetuneRule, reports: Iterable[DecisionReport], margin: float, max_weight: float
) -> Assessment:
    """Returns how a rule does on reported retunes.

    Args:
        rule: The rule.
        reports: Reports, of any releases and decisions.
        margin: Nats per token that a retune has to gain to count as help.
        max_weight: Largest weight of one device.
    """
    known = known_retunes(reports)
    samples = [
        ScoredSample(rule.probability(one), helps(one, margin), retune_weight(one, max_weight))
        for one in known
    ]
    return Assessment(
        devices=len(known),
        effective_devices=effective_size(sample.weight for sample in samples),
        auc=roc_auc(samples),
        errors=error_rates(samples, rule.threshold),
    )
