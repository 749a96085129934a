"""Represented: totals of the whole fleet that the simulated devices stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import polars as pl

from simulations.results.device_means import split_arms
from simulations.results.extrapolation import Extrapolated, Floats, extrapolate

QUANTITIES = ("energy_j", "energy_j_wasted", "down_bytes", "up_bytes")
"""What is extrapolated: columns of ``rows.parquet`` that add up."""


def represented(
    rows: pl.DataFrame, shares: Mapping[str, float], represents: int | None
) -> dict[str, Any] | None:
    """Returns every arm's totals for a fleet of `represents` devices, as JSON; None without one.

    Args:
        rows: One row per arm, device and round.
        shares: Share of each device class in the fleet, relative.
        represents: Devices of that fleet.
    """
    if represents is None:
        return None
    return {
        arm: {
            quantity: _at_least_nothing(extrapolate(_by_class(part, quantity), shares, represents))
            for quantity in QUANTITIES
        }
        for arm, part in split_arms(rows).items()
    }


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
