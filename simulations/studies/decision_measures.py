"""Measures of decisions to reuse or retune against what a retune gains.

The gain is the observer's (`clients.observer.counterfactual`): nats per token on the days to come,
of the arm's own patch, release and user, never another arm's. A claim's margin makes it a label:
a retune helps if it gains more. Intervals resample seeds and devices within them; a resampled
device brings all its decisions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from simulations.results.derived_columns import SCORE
from simulations.results.device_means import Floats, Indices, floats_of
from simulations.studies.claim_measures import add_interval

LABEL = "retune_gain"
"""Column with the nats per token that a retune gains, or would have, on the days to come."""


def estimate_auc(rows: pl.DataFrame, margin: float, *, within: bool) -> dict[str, Any]:
    """Returns the area under the ROC curve of an arm's score against the label.

    Mann and Whitney's statistic over pairs of a decision that a retune helps and one that it does
    not, ties counted half.

    Args:
        rows: An arm's rows with the columns of `simulations.results.derived_columns`.
        margin: Nats per token that a retune has to gain to count as help.
        within: Whether only pairs within one release of one part count, so that what is the same
            for all devices of a release tells nothing.
    """
    devices, concordant, every = _count_pairs(rows, margin, within=within)
    count, whole = len(every), every.sum()

    def statistic(index: Indices) -> Floats:
        weight = np.zeros((len(index), count))
        np.add.at(weight, (np.arange(len(index))[:, None], index), 1.0)
        found = ((weight @ concordant) * weight).sum(axis=1)
        return found / ((weight @ every) * weight).sum(axis=1)

    mean = float(concordant.sum() / whole) if whole else math.nan
    return add_interval(mean, statistic, devices if whole else devices[:0])


def _count_pairs(
    rows: pl.DataFrame, margin: float, *, within: bool
) -> tuple[Indices, Floats, Floats]:
    """Returns devices; concordant and all pairs by device that was helped and device that was not.

    Decisions without a score or a label are left out.
    """
    known = rows.filter(
        (pl.col("decided") == 1) & pl.col(SCORE).is_not_null() & pl.col(LABEL).is_not_null()
    )
    devices, place = np.unique(known["device"].cast(pl.Int64).to_numpy(), return_inverse=True)
    score, up = floats_of(known, SCORE), floats_of(known, LABEL) > margin
    higher = score[up][:, None] - score[~up][None, :]
    counts = np.ones_like(higher)
    if within:
        group = _number_releases(known)
        counts = (group[up][:, None] == group[~up][None, :]).astype(np.float64)
    concordant, every = (np.zeros((len(devices), len(devices))) for _ in range(2))
    pairs = np.ix_(place[up], place[~up])
    np.add.at(concordant, pairs, counts * ((higher > 0) + 0.5 * (higher == 0)))
    np.add.at(every, pairs, counts)
    return devices, concordant, every


def estimate_retune_rate(rows: pl.DataFrame) -> dict[str, Any]:
    """Returns the share of an arm's decisions that are retunes."""
    sums = rows.group_by("device").agg(pl.col("decided", "retuned").sum()).sort("device")
    decided, retuned = (sums[name].cast(pl.Float64).to_numpy() for name in ("decided", "retuned"))

    def statistic(index: Indices) -> Floats:
        return retuned[index].sum(axis=1) / decided[index].sum(axis=1)

    mean = float(retuned.sum() / decided.sum()) if decided.sum() else math.nan
    return add_interval(mean, statistic, sums["device"].to_numpy())


def estimate_share_within(rows: pl.DataFrame) -> dict[str, Any]:
    """Returns the share of the variance of a retune's gain that lies between devices of a release.

    The rest lies between releases, each of one part: what one decision for everybody could follow.
    What is left to chance in measuring a gain counts as between devices.
    """
    found = _read_gains(rows)

    def statistic(index: Indices) -> Floats:
        return np.array([found.share_within(weight) for weight in found.weigh(index)])

    mean = found.share_within(np.ones(len(found.gain))) if len(found.gain) else math.nan
    return add_interval(mean, statistic, found.devices)


def estimate_above_release(rows: pl.DataFrame) -> dict[str, Any]:
    """Returns what deciding per device gains over one good decision per release, nats a decision.

    The rival knows what a retune gains on average under every release of every part, retunes
    everybody where that is most, and a share of the devices of the last such release, so that it
    retunes as often as the arm did. No canary cohort knows more of a release than that.
    """
    found = _read_gains(rows)

    def statistic(index: Indices) -> Floats:
        return np.array([found.above_release(weight) for weight in found.weigh(index)])

    mean = found.above_release(np.ones(len(found.gain))) if len(found.gain) else math.nan
    return add_interval(mean, statistic, found.devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gains:
    """Decisions of known gain.

    Attributes:
        devices: All devices.
        device: Place in `devices` of who decided.
        release: A number for the release of the part.
        gain: What a retune gains, nats per token.
        retuned: Whether the arm retuned.
    """

    devices: Indices
    device: Indices
    release: Indices
    gain: Floats
    retuned: Floats

    def weigh(self, index: Indices) -> Floats:
        """Returns for every draw of devices how often each decision is in it."""
        weight = np.zeros((len(index), len(self.devices)))
        np.add.at(weight, (np.arange(len(index))[:, None], index), 1.0)
        return weight[:, self.device]

    def share_within(self, weight: Floats) -> float:
        """Returns the share of the weighted variance that lies within releases."""
        count, total = self._sum(weight), self._sum(weight * self.gain)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(count > 0, total / count, 0.0)
        whole = float((weight * (self.gain - total.sum() / count.sum()) ** 2).sum())
        inside = float((weight * (self.gain - means[self.release]) ** 2).sum())
        return inside / whole if whole > 0 else math.nan

    def above_release(self, weight: Floats) -> float:
        """Returns the mean gain of the arm's retunes less that of as many by whole releases."""
        count, total = self._sum(weight), self._sum(weight * self.gain)
        present = count > 0
        count, total = count[present], total[present]
        left = float((weight * self.retuned).sum())
        rival = 0.0
        for place in np.argsort(-total / count, kind="stable"):
            share = min(1.0, left / float(count[place]))
            rival += share * float(total[place])
            left -= share * float(count[place])
        own = float((weight * self.retuned * self.gain).sum())
        return (own - rival) / float(weight.sum())

    def _sum(self, values: Floats) -> Floats:
        return np.bincount(self.release, weights=values).astype(np.float64)


def _read_gains(rows: pl.DataFrame) -> _Gains:
    known = rows.filter((pl.col("decided") == 1) & pl.col(LABEL).is_not_null())
    devices, device = np.unique(known["device"].cast(pl.Int64).to_numpy(), return_inverse=True)
    return _Gains(
        devices=devices,
        device=device,
        release=_number_releases(known),
        gain=floats_of(known, LABEL),
        retuned=floats_of(known, "retuned"),
    )


def _number_releases(rows: pl.DataFrame) -> Indices:
    """Returns a number from 0 for every row's release and part."""
    part = pl.col("part") if "part" in rows.columns else pl.lit(0)
    ranks = rows.select(pl.struct(part.alias("part"), "release").rank("dense")).to_series()
    return ranks.cast(pl.Int64).to_numpy() - 1
