"""Prices a run with one coefficient moved, or a whole kind of them scaled, all else central.

This answers two questions: does a saving depend on how fast and how hungry devices really are, and
which coefficients decide the joules?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleettune.cost.energy import Floats
from fleettune.cost.hardware import TIERS, DeviceProfile
from fleettune.cost.radio import Radio
from simulations.uncertainty.coefficient_draws import scale_coefficients, tiers_of
from simulations.uncertainty.priced_rows import Nights
from simulations.uncertainty.repricing import Totals, reprice

SCALE_FREE = 0.05
"""A saving is scale-free if doubling or halving all throughputs (eff_*), or all powers (p_*), moves
it by at most this share of itself; otherwise it is scale-bound."""

_SCALINGS = (("eff_", 0.5), ("eff_", 2.0), ("p_", 0.5), ("p_", 2.0))
_STEP = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Joules under all probes: central, the scalings, then each coefficient moved by 1 %.

    Attributes:
        totals: Joules, probes in the place of draws.
        profiles: As in the rows.
        radio: How devices are connected.
        moved: Names of the coefficients, in order.
    """

    totals: Totals
    profiles: Sequence[DeviceProfile]
    radio: Radio
    moved: Sequence[str]

    def scaled(self, arm: int, reference: int) -> tuple[float | None, bool]:
        """Returns how far scaling moves a saving at most, and whether it is scale-free."""
        joules = self.totals.total_j[:, : 1 + len(_SCALINGS)]
        with np.errstate(divide="ignore", invalid="ignore"):
            saved = 1.0 - joules[arm] / joules[reference]
            shift = float(np.abs(saved - saved[0]).max())
        if not math.isfinite(shift):
            return None, False
        return shift, shift <= SCALE_FREE * abs(float(saved[0]))

    def weighted_tiers(self, arms: Sequence[int]) -> dict[str, dict[str, float]]:
        """Returns each tier's share in what decides some arms' joules, by device ledger.

        A coefficient weighs as many joules as a small change of it moves, by the same small change.
        """
        marginal_j, idle_j = (
            joules[list(arms)].sum(axis=0)
            for joules in (self.totals.marginal_j, self.totals.idle_j)
        )
        factors = _factors(self.moved)["charger_efficiency"]
        efficiency = [profile.charger_efficiency.value * factors for profile in self.profiles]
        total_j = marginal_j + idle_j
        ledgers = {"device_marginal": marginal_j, "device_total": total_j}
        ledgers["wall"] = total_j / np.array(efficiency)
        return {name: self._tier_shares(joules) for name, joules in ledgers.items()}

    def _tier_shares(self, joules: Floats) -> dict[str, float]:
        weights: dict[str, float] = dict.fromkeys(TIERS, 0.0)
        for place, profile in enumerate(self.profiles):
            for name, tier in tiers_of(profile, self.radio).items():
                step = 1 + len(_SCALINGS) + self.moved.index(name)
                weights[tier] += abs(float(joules[place, step] - joules[place, 0]))
        whole = math.fsum(weights.values())
        return {tier: weight / whole if whole else 0.0 for tier, weight in weights.items()}


def probe_coefficients(nights: Nights, profiles: Sequence[DeviceProfile], radio: Radio) -> Probes:
    """Returns the rows under all probes; profiles are those of `nights.profiles`, in order."""
    moved = sorted({name for profile in profiles for name in tiers_of(profile, radio)})
    count = 1 + len(_SCALINGS) + len(moved)
    factors = _factors(moved)
    totals = reprice(
        nights, [scale_coefficients(profile, radio, factors, count) for profile in profiles]
    )
    return Probes(totals=totals, profiles=profiles, radio=radio, moved=moved)


def _factors(moved: Sequence[str]) -> dict[str, Floats]:
    factors = {name: np.ones(1 + len(_SCALINGS) + len(moved)) for name in moved}
    for name, factor in factors.items():
        for place, (prefix, scale) in enumerate(_SCALINGS, start=1):
            factor[place] = scale if name.startswith(prefix) else 1.0
        factor[1 + len(_SCALINGS) + moved.index(name)] = 1.0 + _STEP
    return factors
