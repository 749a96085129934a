"""Counts joules by whose they are. Ledgers overlap or differ in kind, and are never added up.

    device_marginal   what the tasks added to devices that were on anyway: all stages but idle
    device_total      the same devices with their idle draw while kept awake
    wall              device_total / charger efficiency: what the socket gave
    network           infrastructure between server and access point; off by default
    server            one server while rounds are open
    host              what this simulation took on its machine; measured, no part of the others

Device ledgers are simulated. Their ranges are those of the coefficients' draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from fleettune.cost.hardware import TIERS, Coefficient
from simulations.results.device_means import STAGES, finite, sum_column
from simulations.uncertainty.coefficient_draws import draw_coefficient
from simulations.uncertainty.estimate import UNKNOWN, Bounds, Uncertainty, find_interval

NETWORK_J_PER_MB = Coefficient(
    value=1.3,
    low=0.4,
    high=5.0,
    tier="E",
    source=(
        "our estimate: 3 edge routers of 37 nJ/bit and 4 core routers of 12.6 nJ/bit (Jalali et "
        "al., second-hand); low: one of each; high: twice the routers, redundancy of 2"
    ),
)
"""Routers between server and access point; the user's own access point is left out."""
SERVER_W = Coefficient(
    value=49.0,
    low=25.0,
    high=100.0,
    tier="S",
    source="45 W of a server at PUE 1.09 (Green FL, arXiv 2303.14604); range: our estimate",
)
"""One server that coordinates this fleet alone."""
SERVER = (
    "simulated: one server for this fleet alone, while rounds are open (first start to last "
    "reply); training releases is the vendor's and not counted"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One ledger of one arm; joules are None where they are not counted or unknown.

    Attributes:
        joules: At the central value of every coefficient.
        low: The 2.5 % quantile over the draws.
        high: The 97.5 % quantile.
        tiers: Share of every tier in what decides the joules; empty where nothing is counted.
        note: What is counted, or why it is not.
    """

    joules: float | None
    low: float | None
    high: float | None
    tiers: Mapping[str, float]
    note: str


def arm_ledgers(
    rows: pl.DataFrame, arm: str, known: Uncertainty, *, network: bool
) -> dict[str, LedgerEntry]:
    """Returns every ledger of an arm but the host's, by name.

    Args:
        rows: The arm's rows.
        arm: Its name.
        known: Draws of the coefficients.
        network: Whether to count the infrastructure.
    """
    place = known.arms.index(arm)
    marginal_j, total_j = known.totals.marginal_j[place], known.totals.total_j[place]
    wall_j = (known.totals.marginal_j + known.totals.idle_j)[place] / known.efficiency[1]
    central_wall_j = [
        _divided(sum_column(rows.filter(pl.col("profile") == name), "energy_j"), float(efficiency))
        for name, efficiency in zip(known.profiles, known.efficiency[0], strict=True)
    ]
    stages = [sum_column(rows, f"energy_j_{stage}") for stage in STAGES if stage != "idle"]
    tiers = known.weighted_tiers[arm]
    return {
        "device_marginal": _ledger(
            _sum(stages),
            find_interval(marginal_j.sum(axis=0)),
            tiers["device_marginal"],
            "simulated: all stages but idle",
        ),
        "device_total": _ledger(
            sum_column(rows, "energy_j"),
            find_interval(total_j),
            tiers["device_total"],
            "simulated: with the idle draw while kept awake",
        ),
        "wall": _ledger(
            _sum(central_wall_j),
            find_interval(wall_j.sum(axis=0)),
            tiers["wall"],
            "simulated: device total over charger efficiency",
        ),
        "network": _network(rows, known, counted=network),
        "server": _server(rows, known),
    }


def host_ledger(host_seconds: float, energy_j: float | None, note: str) -> dict[str, Any]:
    """Returns what the simulation took on its machine, as JSON: measured, or not known."""
    return {"seconds": finite(host_seconds), "joules": energy_j, "note": note}


def sum_open_time(rows: pl.DataFrame) -> float:
    """Returns how long the rounds of an arm were open: from the first start to the last reply."""
    worked = rows.filter(pl.col("night_s") > 0)
    rounds = worked.group_by("round").agg(
        (pl.col("start_s") + pl.col("night_s")).max().alias("end"),
        pl.col("start_s").min().alias("start"),
    )
    return math.fsum((rounds["end"] - rounds["start"]).to_list())


def _server(rows: pl.DataFrame, known: Uncertainty) -> LedgerEntry:
    time_s, note = sum_open_time(rows), f"{SERVER}; {SERVER_W.source}"
    draws = draw_coefficient("server.w", SERVER_W, known.seed, known.draws)
    tiers = {tier: float(tier == SERVER_W.tier) for tier in TIERS}
    return _ledger(time_s * SERVER_W.value, find_interval(time_s * draws), tiers, note)


def _network(rows: pl.DataFrame, known: Uncertainty, *, counted: bool) -> LedgerEntry:
    if not counted:
        return _ledger(None, UNKNOWN, {}, "not counted: cost.network is off")
    sizes = sum_column(rows, "down_bytes"), sum_column(rows, "up_bytes")
    size_bytes = _sum(sizes)
    if size_bytes is None:
        return _ledger(None, UNKNOWN, {}, "unknown bytes")
    key = "network.j_per_mb"
    draws = draw_coefficient(key, NETWORK_J_PER_MB, known.seed, known.draws) * 1e-6
    tiers = {tier: float(tier == NETWORK_J_PER_MB.tier) for tier in TIERS}
    joules = size_bytes * NETWORK_J_PER_MB.value * 1e-6
    return _ledger(joules, find_interval(size_bytes * draws), tiers, NETWORK_J_PER_MB.source)


def _ledger(
    joules: float | None, bounds: Bounds, tiers: Mapping[str, float], note: str
) -> LedgerEntry:
    low, high = bounds if joules is not None else UNKNOWN
    return LedgerEntry(joules=joules, low=low, high=high, tiers=tiers, note=note)


def _sum(parts: list[float | None] | tuple[float | None, ...]) -> float | None:
    known = [part for part in parts if part is not None]
    return math.fsum(known) if len(known) == len(parts) else None


def _divided(joules: float | None, efficiency: float) -> float | None:
    return None if joules is None else joules / efficiency
