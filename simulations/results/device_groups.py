"""Who pays: what an arm saves and changes on groups of devices, by class and by amount of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from simulations.experiment.study_settings import STRATA
from simulations.results.device_means import (
    Indices,
    PerDevice,
    compare_arms,
    pair_devices,
    take_devices,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataStratum:
    """Devices whose users wrote about as much.

    Attributes:
        devices: Their numbers.
        exchanges: The fewest and the most that one of these users wrote.
    """

    devices: Indices
    exchanges: tuple[int, int]


def group_by_class(rows: pl.DataFrame) -> dict[str, Indices]:
    """Returns the numbers of the devices of every class, the classes by name."""
    pairs = rows.select("profile", pl.col("device").cast(pl.Int64)).unique().sort("device")
    names: list[str] = pairs["profile"].unique().sort().to_list()
    return {name: pairs.filter(pl.col("profile") == name)["device"].to_numpy() for name in names}


def stratify_by_data(rows: pl.DataFrame) -> dict[str, DataStratum]:
    """Returns the strata of an arm's devices by the exchanges that arrived in all rounds.

    Strata are of equal size, or the first of them one larger; devices with as many exchanges go by
    number. Below 3 devices the last strata are left out.
    """
    arrived = rows.group_by(pl.col("device").cast(pl.Int64)).agg(pl.col("arrived").sum())
    ordered = arrived.sort("arrived", "device")
    parts = np.array_split(np.arange(ordered.height), len(STRATA))
    return {
        name: DataStratum(
            devices=ordered["device"].gather(part).to_numpy(),
            exchanges=(int(ordered["arrived"][part[0]]), int(ordered["arrived"][part[-1]])),
        )
        for name, part in zip(STRATA, (part.tolist() for part in parts), strict=True)
        if part
    }


def compare_groups(
    rows: pl.DataFrame,
    pair: tuple[PerDevice, PerDevice],
    groups: Mapping[str, Indices],
    seed: int,
) -> dict[str, Any]:
    """Returns by group what `compare_arms` does, its devices and how often one retuned.

    Args:
        rows: The arm's rows.
        pair: The arm and the reference.
        groups: Numbers of devices; one of which both arms have no device is left out.
        seed: Key of the bootstrap.
    """
    arm, reference = pair_devices(*pair)
    retuned = rows.filter(pl.col("decision") == "retune")["device"].to_numpy()
    found: dict[str, Any] = {}
    for name, devices in groups.items():
        shared = np.flatnonzero(np.isin(arm.devices, devices))
        if count := len(shared):
            here, there = (take_devices(one, shared) for one in (arm, reference))
            retunes = int(np.isin(retuned, here.devices).sum())
            found[name] = {
                "devices": count,
                **compare_arms(here, there, seed),
                "retunes_per_device": retunes / count,
            }
    return found
