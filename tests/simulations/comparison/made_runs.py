"""Finished runs of few devices, made in memory; their numbers can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simulations.comparison.found_runs import FoundRun
from simulations.results.device_means import PerDevice

Arm = tuple[Sequence[float], Sequence[float]]
"""Joules and quality of every device."""


def per_device(arm: Arm) -> PerDevice:
    joules, quality = (np.array(values, dtype=float) for values in arm)
    return PerDevice(devices=np.arange(len(joules)), energy_j=joules, quality=quality)


def summary_of(arms: Mapping[str, PerDevice], **run: Any) -> dict[str, Any]:  # noqa: ANN401
    reference = next(iter(arms))
    tiers = {"M": 1.0, "F": 0.0, "S": 0.0, "V": 0.0, "E": 0.0}
    parts: dict[str, Any] = {}
    for name, one in arms.items():
        total = float(one.energy_j.sum())
        joules = {"total": total, "low": total / 2, "high": total * 2}
        parts[name] = {
            "quality": {"metric": "exact_match", "mean": float(np.mean(one.quality))},
            "energy_j": joules | {"ledgers": {"device_total": {"tiers": tiers}}},
            "vs_reference": {"reference": reference},
        }
    facts = {"rounds": 2, "priced_as": "own", "data": "made", "devices": 2} | run
    return {"run": facts, "arms": parts}


def make_found(
    seed: int,
    arms: Mapping[str, Arm],
    typed: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    **run: Any,  # noqa: ANN401
) -> FoundRun:
    """A run whose first arm is the reference; what was typed stands in its settings as well."""
    found = {name: per_device(arm) for name, arm in arms.items()}
    typed = typed or {}
    return FoundRun(
        name=f"{' '.join(typed.values())} {seed}",
        seed=seed,
        settings=settings if settings is not None else typed,
        typed=typed,
        options=options or {},
        summary=summary_of(found, **run),
        arms=found,
        unserved=found,
        fleet=tuple((device, "phone") for device in range(len(next(iter(arms.values()))[0]))),
    )
