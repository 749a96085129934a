"""Estimates the totals of a fleet from the devices that were simulated.

A stratified estimator of a total (Cochran 1977, ch. 5), strata being device classes: class h makes
up N_h = N * share_h of the fleet, n_h of it were simulated with mean y_h and variance s_h^2:

    total = sum N_h y_h          SE^2 = sum N_h^2 (1 - n_h / N_h) s_h^2 / n_h

with a t interval at Satterthwaite's degrees of freedom. Devices draw their class by its share, so
this is stratification after selection, conditional on the n_h. Only the sampling of devices is
covered; what coefficients, data and the model do is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from simulations.results.device_means import Floats, split_arms

_LEAST = 2
_NONE: Floats = np.empty(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extrapolated:
    """A total of a whole fleet.

    Attributes:
        total: Its estimate.
        low: Lower end of the 95 % interval; None below 2 simulated devices.
        high: Upper end.
        represents: Devices of the fleet.
        simulated: Devices behind the estimate.
        pooled: Classes that had fewer than 2 simulated devices and share one stratum, with another
            class where they are too few together.
        strata: Simulated devices of each stratum, by the names of its classes.
    """

    total: float
    low: float | None
    high: float | None
    represents: int
    simulated: int
    pooled: tuple[str, ...]
    strata: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stratum:
    names: tuple[str, ...]
    size: float
    values: Floats

    @property
    def variance(self) -> float:
        """Variance of the estimated total; with replacement where all are simulated twice over."""
        seen = len(self.values)
        missing = max(0.0, 1.0 - seen / self.size)
        return self.size**2 * missing * float(self.values.var(ddof=1)) / seen


def extrapolate(
    values: Mapping[str, Floats], shares: Mapping[str, float], represents: int
) -> Extrapolated:
    """Returns the total of a fleet from one value per simulated device.

    Args:
        values: By class, a quantity of each of its simulated devices, such as joules of all nights.
        shares: Share of each class in the fleet, relative; every class of `values` is there.
        represents: Devices of the fleet, at least as many as were simulated.

    Raises:
        ValueError: If no device was simulated, the fleet is smaller than the sample, a class has no
            share, or a value is not finite.
    """
    simulated = sum(len(one) for one in values.values())
    if simulated < 1:
        raise ValueError("values must hold at least one simulated device, got none")
    if represents < simulated:
        raise ValueError(f"represents must be >= {simulated} simulated devices, got {represents}")
    if missing := sorted(name for name in values if shares.get(name, 0.0) <= 0):
        raise ValueError(f"shares must be > 0 for every simulated class, got none for {missing}")
    if not all(np.isfinite(one).all() for one in values.values()):
        raise ValueError("values must be finite, got one that is not")
    strata, pooled = _strata(values, shares, represents)
    total = math.fsum(stratum.size * float(stratum.values.mean()) for stratum in strata)
    half = _half_width(strata) if simulated >= _LEAST else None
    return Extrapolated(
        total=total,
        low=None if half is None else total - half,
        high=None if half is None else total + half,
        represents=represents,
        simulated=simulated,
        pooled=pooled,
        strata={", ".join(one.names): len(one.values) for one in strata},
    )


def _strata(
    values: Mapping[str, Floats], shares: Mapping[str, float], represents: int
) -> tuple[list[_Stratum], tuple[str, ...]]:
    """Returns strata of at least 2 devices where there are as many, and the classes pooled."""
    known = {name: share for name, share in shares.items() if share > 0}
    whole = math.fsum(known.values())
    strata = [
        _Stratum(
            names=(name,),
            size=represents * share / whole,
            values=values.get(name, _NONE),
        )
        for name, share in sorted(known.items())
    ]
    large = sorted((one for one in strata if len(one.values) >= _LEAST), key=_by_size)
    small = [one for one in strata if len(one.values) < _LEAST]
    if not small:
        return large, ()
    # too few together: the smallest class that stands alone lends its devices
    while large and sum(len(one.values) for one in small) < _LEAST:
        small.append(large.pop(0))
    names = tuple(sorted(name for one in small for name in one.names))
    joined = _Stratum(
        names=names,
        size=math.fsum(one.size for one in small),
        values=np.concatenate([one.values for one in small]),
    )
    return [*large, joined], names


def _by_size(stratum: _Stratum) -> tuple[float, tuple[str, ...]]:
    return stratum.size, stratum.names


def _half_width(strata: list[_Stratum]) -> float:
    parts = [stratum.variance for stratum in strata]
    variance = math.fsum(parts)
    if variance == 0:
        return 0.0
    # of shares, for the square of a tiny variance is none
    squares = math.fsum(
        (part / variance) ** 2 / (len(stratum.values) - 1)
        for part, stratum in zip(parts, strata, strict=True)
    )
    return float(stdtrit(1 / squares, 0.975)) * math.sqrt(variance)


QUANTITIES = ("energy_j", "energy_j_wasted", "down_bytes", "up_bytes")
"""What is extrapolated: columns of ``rows.parquet`` that add up."""


SAVED = "energy_j_saved"
"""What an arm uses less than the reference on the same devices; below zero where it uses more."""


def extrapolate_arms(
    rows: pl.DataFrame, shares: Mapping[str, float], represents: int | None, reference: str
) -> dict[str, Any] | None:
    """Returns every arm's totals for a fleet of `represents` devices, as JSON; None without one.

    Args:
        rows: One row per arm, device and round.
        shares: Share of each device class in the fleet, relative.
        represents: Devices of that fleet.
        reference: The arm against which `SAVED` is counted, for every other one.
    """
    if represents is None:
        return None
    parts = split_arms(rows)
    found: dict[str, Any] = {}
    for arm, part in parts.items():
        found[arm] = {
            name: _at_least_nothing(extrapolate(_by_class(part, name), shares, represents))
            for name in QUANTITIES
        }
        if arm != reference:
            saved = _by_class(_pair(part, parts[reference]), SAVED)
            found[arm][SAVED] = asdict(extrapolate(saved, shares, represents))
    return found


def _pair(rows: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    """Returns what each device that both arms have used less than with the reference."""
    used, spent = (
        one.group_by("profile", "device").agg(pl.col("energy_j").sum()) for one in (rows, reference)
    )
    both = used.join(spent, on=["profile", "device"], suffix="_reference")
    return both.with_columns((pl.col("energy_j_reference") - pl.col("energy_j")).alias(SAVED))


def _at_least_nothing(found: Extrapolated) -> dict[str, Any]:
    """Returns a total as JSON; the normal interval of a rare quantity may reach below zero."""
    return asdict(found if found.low is None else replace(found, low=max(0.0, found.low)))


def _by_class(rows: pl.DataFrame, quantity: str) -> dict[str, Floats]:
    """Returns one total per device, by its class."""
    totals = rows.group_by("profile", "device").agg(pl.col(quantity).sum()).sort("device")
    return {
        profile: part[quantity].to_numpy().astype(np.float64)
        for (profile,), part in totals.group_by("profile", maintain_order=True)
        if isinstance(profile, str)
    }
