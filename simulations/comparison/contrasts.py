"""Lines against the best one, paired by device, with p-values that allow for their number.

A p-value comes from the resamples of which the interval is the middle 95 %: twice the smaller share
of resamples on one side of no difference, that value counted on both (Davison and Hinkley 1997,
chapter 4; one is added to count and number, so it is never 0). All p-values of a comparison are
corrected together by Holm's step-down (Holm 1979, Scandinavian Journal of Statistics 6): the chance
of one wrong claim or more is at most 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulations.comparison.fold import Estimate, Line
from simulations.results.device_means import (
    RESAMPLES,
    Floats,
    compare_arms,
    draw_means,
    draw_savings,
    pair_devices,
)

LEVEL = 0.05
"""Greatest chance of a wrong claim among all of a comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A line against the best one; no number where they share no seed.

    Attributes:
        saving: Share of the best one's simulated joules that the line saves.
        quality_change: Its quality minus the best one's.
        p_saving: Two-sided p-value of no saving; None where there is no interval.
        p_quality: The same of no change of quality.
        holm_saving: `p_saving`, corrected by Holm for all p-values of the comparison.
        holm_quality: The same of `p_quality`.
    """

    saving: Estimate
    quality_change: Estimate
    p_saving: float | None
    p_quality: float | None
    holm_saving: float | None = None
    holm_quality: float | None = None

    @property
    def shows_loss(self) -> bool:
        """Whether the line is shown to be of lower quality than the best one."""
        return _is_shown(self.holm_quality) and self.quality_change["mean"] < 0

    @property
    def shows_saving(self) -> bool:
        """Whether the line is shown to use less energy than the best one."""
        return _is_shown(self.holm_saving) and self.saving["mean"] > 0

    @property
    def shows_extra(self) -> bool:
        """Whether the line is shown to use more energy than the best one."""
        return _is_shown(self.holm_saving) and self.saving["mean"] < 0

    @property
    def is_judged(self) -> bool:
        """Whether a loss of quality could have been shown."""
        return self.holm_quality is not None


def contrast_lines(lines: Sequence[Line], best: Line) -> list[Contrast | None]:
    """Returns every line against the best one in the order of lines; None for the best itself."""
    found = [None if line is best else _contrast(line, best) for line in lines]
    known = [one for one in found if one is not None]
    corrected = iter(
        correct_holm([p for one in known for p in (one.p_saving, one.p_quality)]),
    )
    return [
        None
        if one is None
        else replace(one, holm_saving=next(corrected), holm_quality=next(corrected))
        for one in found
    ]


def correct_holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns p-values corrected by Holm's step-down; an unknown one stays so and does not count.

    The k-th smallest of m is multiplied by m - k + 1; it is at least the one before, at most 1.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[place] = largest
    return corrected


def estimate_p_value(draws: Floats) -> float | None:
    """Returns the two-sided p-value of no difference from its resamples; None without any."""
    if not len(draws) or not np.isfinite(draws).all():
        return None
    fewer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(draws) + 1))


def count_comparisons(contrasts: Sequence[Contrast | None]) -> int:
    """Returns by how many p-values the correction allows for."""
    known = (one for one in contrasts if one is not None)
    return sum(p is not None for one in known for p in (one.p_saving, one.p_quality))


def can_show(comparisons: int) -> bool:
    """Returns whether the smallest p-value that resamples can give is small enough for a claim."""
    return comparisons * 2 / (RESAMPLES + 1) <= LEVEL


def _contrast(line: Line, best: Line) -> Contrast:
    here, there = pair_devices(line.devices, best.devices)
    shared = sorted(line.runs.keys() & best.runs.keys())
    key = shared[0] if shared else 0
    versus = compare_arms(here, there, key)
    return Contrast(
        saving=versus["energy_saving"],
        quality_change=versus["quality_difference"],
        p_saving=estimate_p_value(draw_savings(here, there, key)),
        p_quality=estimate_p_value(draw_means(here.quality - there.quality, here.devices, key)),
    )


def _is_shown(p: float | None) -> bool:
    return p is not None and p <= LEVEL
