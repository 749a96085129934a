"""Assessment: how well a rule tells devices that retuning helps from the others.

A rule is judged by the retunes that were reported, each weighted by one over its propensity, as in
`strategies.learning.calibration`. Judged by the reports that it was fitted to it looks a little too
good; by those of the release that it was shipped with, it does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from strategies.learning.calibration import RetuneRule, helps, known_retunes, retune_weight
from strategies.learning.outcomes import DecisionReport
from strategies.learning.rule_accuracy import (
    ErrorRates,
    Pairs,
    ScoredSample,
    effective_size,
    error_rates,
    weigh_pairs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """How a rule did; every number is weighted to stand for all devices that decided.

    Attributes:
        devices: Retunes with a known gain.
        effective_devices: Kish's effective number of them after weighting.
        auc: Area under the ROC curve of the probability against "gained more than the margin".
        auc_within: The same over pairs of devices of one release only: what is left where drift,
            which is the same for a whole release, tells nothing.
        auc_by_release: The area of every release; None where all or none were helped.
        errors: False reuse and false retune rates at the rule's threshold.
    """

    devices: int
    effective_devices: float
    auc: float | None
    auc_within: float | None
    auc_by_release: tuple[tuple[int, float | None], ...]
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
        ScoredSample(
            rule.probability(report), helps(report, margin), retune_weight(report, max_weight)
        )
        for report in known
    ]
    releases = [report.release for report in known]
    within = {
        release: weigh_pairs(sample for _, sample in group)
        for release, group in groupby(
            zip(releases, samples, strict=True), key=lambda entry: entry[0]
        )
    }
    return Assessment(
        devices=len(known),
        effective_devices=effective_size(sample.weight for sample in samples),
        auc=weigh_pairs(samples).auc,
        auc_within=sum(within.values(), Pairs()).auc,
        auc_by_release=tuple((release, found.auc) for release, found in within.items()),
        errors=error_rates(samples, rule.threshold),
    )
