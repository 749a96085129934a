"""Turns the ranges of the coefficients into ranges of a run's joules and savings.

Three intervals of 95 % are kept apart: over devices at central coefficients (the bootstrap of
`simulations.results.device_means`), over coefficients at the devices that were simulated, and over
both at once (one resample of devices per draw of the coefficients). Every draw is common to all
arms, so a saving is a difference of like with like.

Decisions stay as they were simulated. What a draw would have changed is counted where rows allow:
a night that crosses the deadline. Not covered, because rows do not hold it: memory that would no
longer suffice, batteries, hours of charging, interruptions, and choices of a policy that looks at
joules or seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fleettune.cost.energy import Floats
from fleettune.cost.hardware import DeviceProfile
from fleettune.cost.ledger import ORDER, Stage
from fleettune.cost.radio import Radio
from fleettune.seeds import Purpose, stream
from simulations.uncertainty.coefficient_draws import DRAWS, draw_coefficients
from simulations.uncertainty.coefficient_probes import Probes, probe_coefficients
from simulations.uncertainty.priced_rows import Nights, read_nights
from simulations.uncertainty.repricing import Totals, reprice, reprice_stages

_CELLS = 2**27
Bounds = tuple[float | None, float | None]
UNKNOWN: Bounds = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """How sure an arm's saving of device joules against the reference is.

    Attributes:
        draws: The saving under every draw of the coefficients, [draws].
        by_coefficients: Its 95 % interval over the draws, at the devices that were simulated.
        by_both: The same with devices resampled at every draw; unknown below 2 devices.
        largest_shift: How far doubling or halving throughputs or powers moves the saving at most;
            None if the reference spent nothing.
        is_scale_free: Whether that is within
            `simulations.uncertainty.coefficient_probes.SCALE_FREE`.
    """

    draws: Floats
    by_coefficients: Bounds
    by_both: Bounds
    largest_shift: float | None
    is_scale_free: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """What is known of a run's joules beyond their central value.

    Attributes:
        draws: Number of draws.
        seed: The experiment's seed; draws follow from it.
        arms: Names, ascending, as in all arrays.
        profiles: Names, ascending.
        efficiency: Charger efficiency by profile: central, and draws [profiles, draws].
        totals: Joules under every draw.
        stages: By arm and stage, the 95 % interval of its joules over the draws.
        saving: By arm.
        flipped: Mean share of an arm's finished nights that cross the deadline under a draw; None
            without a deadline or without such nights.
        weighted_tiers: By arm and device ledger (`simulations.results.ledgers`), the share of every
            tier, its coefficients weighted by what a small change of each does to the joules.
        tiers: The same for the device total of all arms together.
    """

    draws: int
    seed: int
    arms: tuple[str, ...]
    profiles: tuple[str, ...]
    efficiency: tuple[Floats, Floats]
    totals: Totals
    stages: Mapping[str, Mapping[str, Bounds]]
    saving: Mapping[str, Saving]
    flipped: Mapping[str, float | None]
    weighted_tiers: Mapping[str, Mapping[str, Mapping[str, float]]]
    tiers: Mapping[str, float]


def estimate(  # noqa: PLR0913 - the run's tables, and how they are drawn
    rows: pl.DataFrame,
    work: pl.DataFrame,
    profiles: Sequence[DeviceProfile],
    reference: str,
    *,
    radio: Radio,
    seed: int,
    draws: int = DRAWS,
    deadline_s: float = math.inf,
) -> Uncertainty:
    """Returns the uncertainty of a run's joules.

    Args:
        rows: One row per arm, device and round.
        work: What they were priced from.
        profiles: Those of the fleet; at least all that occur in the rows.
        reference: The arm that savings are measured against.
        radio: How devices are connected.
        seed: The experiment's seed.
        draws: Number of draws.
        deadline_s: Seconds of a night after which a device is late, as simulated.

    Raises:
        ValueError: If a row's profile is not among them, or the reference has no rows.
    """
    by_name = {profile.name: profile for profile in profiles}
    if reference not in (arms := rows["arm"].unique().sort().to_list()):
        raise ValueError(f"reference must be an arm of the run {arms}, got {reference!r}")
    if unknown := sorted(set(rows["profile"]) - set(by_name)):
        raise ValueError(f"profiles must hold those of the rows, got none for {unknown}")
    model = _Model(by_name=by_name, radio=radio, seed=seed, draws=draws, deadline_s=deadline_s)
    every = _evaluate(read_nights(rows, work), model)
    nights, found = every.nights, model.of(every.nights)
    efficiency = [
        draw_coefficients(profile, radio, seed, draws)["charger_efficiency"] for profile in found
    ]
    return Uncertainty(
        draws=draws,
        seed=seed,
        arms=nights.arms,
        profiles=nights.profiles,
        efficiency=(
            np.array([profile.charger_efficiency.value for profile in found]),
            np.array(efficiency),
        ),
        totals=every.totals,
        stages=_stages(every, model),
        saving={
            arm: _saving(_shared(every, rows, work, model, (arm, reference)), arm, reference)
            for arm in nights.arms
        },
        flipped={
            arm: _share(every.totals, place, deadline_s) for place, arm in enumerate(nights.arms)
        },
        weighted_tiers={
            arm: every.probes.weighted_tiers([place]) for place, arm in enumerate(nights.arms)
        },
        tiers=every.probes.weighted_tiers(range(len(nights.arms)))["device_total"],
    )


def find_interval(draws: Floats) -> Bounds:
    """Returns the 2.5 and 97.5 % quantiles of draws; unknown where one of them is not finite."""
    if not np.isfinite(draws).all():
        return UNKNOWN
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """How rows are priced, and how often."""

    by_name: Mapping[str, DeviceProfile]
    radio: Radio
    seed: int
    draws: int
    deadline_s: float

    def of(self, nights: Nights) -> list[DeviceProfile]:
        return [self.by_name[name] for name in nights.profiles]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluated:
    """Rows under the draws and under the probes."""

    nights: Nights
    totals: Totals
    probes: Probes


def _evaluate(nights: Nights, model: _Model) -> _Evaluated:
    found = model.of(nights)
    at = [draw_coefficients(profile, model.radio, model.seed, model.draws) for profile in found]
    rng = stream(model.seed, Purpose.COEFFICIENTS, 0)
    parts = [
        reprice(
            nights,
            [{name: item[part] if item.ndim else item for name, item in one.items()} for one in at],
            weights=_resamples(rng, len(nights.devices), part.stop - part.start),
            deadline_s=model.deadline_s,
        )
        for part in _parts(model.draws, len(nights.devices))
    ]
    return _Evaluated(
        nights=nights, totals=_joined(parts), probes=probe_coefficients(nights, found, model.radio)
    )


def _parts(draws: int, devices: int) -> list[slice]:
    """Draws in parts whose weights of all devices fit into memory."""
    step = max(1, min(draws, _CELLS // max(devices, 1)))
    return [slice(start, min(start + step, draws)) for start in range(0, draws, step)]


def _resamples(rng: np.random.Generator, devices: int, draws: int) -> NDArray[np.uint8]:
    """Returns how often each device occurs in a resample of all, [devices, draws]."""
    found = np.empty((devices, draws), dtype=np.uint8)
    for draw in range(draws):
        counts = np.bincount(rng.integers(devices, size=devices), minlength=devices)
        found[:, draw] = np.minimum(counts, 255)
    return found


def _joined(parts: Sequence[Totals]) -> Totals:
    return Totals(
        marginal_j=np.concatenate([part.marginal_j for part in parts], axis=-1),
        idle_j=np.concatenate([part.idle_j for part in parts], axis=-1),
        device_j=np.concatenate([part.device_j for part in parts], axis=-1),
        resampled_j=np.concatenate([part.resampled_j for part in parts], axis=-1),
        flipped=np.concatenate([part.flipped for part in parts], axis=-1),
        replied=parts[0].replied,
    )


def _shared(
    every: _Evaluated,
    rows: pl.DataFrame,
    work: pl.DataFrame,
    model: _Model,
    pair: tuple[str, str],
) -> _Evaluated:
    """Returns the evaluation of the devices that two arms share; of all where they are the same."""
    first, second = (rows.filter(pl.col("arm") == arm)["device"].unique().sort() for arm in pair)
    if first.equals(second) and len(first) == len(every.nights.devices):
        return every
    kept = pl.col("arm").is_in(pair) & pl.col("device").is_in(first.filter(first.is_in(second)))
    return _evaluate(read_nights(rows.filter(kept), work.filter(kept)), model)


def _saving(evaluated: _Evaluated, arm: str, reference: str) -> Saving:
    arms, unknown = evaluated.nights.arms, np.full(1, math.nan)
    if arm not in arms or reference not in arms:
        return Saving(
            draws=unknown,
            by_coefficients=UNKNOWN,
            by_both=UNKNOWN,
            largest_shift=None,
            is_scale_free=False,
        )
    here, there = arms.index(arm), arms.index(reference)

    def saved(joules: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1.0 - joules[here] / joules[there]

    draws, both = saved(evaluated.totals.total_j), saved(evaluated.totals.resampled_j)
    shift, is_scale_free = evaluated.probes.scaled(here, there)
    return Saving(
        draws=draws,
        by_coefficients=find_interval(draws),
        by_both=find_interval(both) if len(evaluated.nights.devices) > 1 else UNKNOWN,
        largest_shift=shift,
        is_scale_free=is_scale_free,
    )


def _stages(every: _Evaluated, model: _Model) -> dict[str, dict[str, Bounds]]:
    at = [
        draw_coefficients(profile, model.radio, model.seed, model.draws)
        for profile in model.of(every.nights)
    ]
    joules = reprice_stages(every.nights, at)
    joules[:, ORDER[Stage.IDLE]] = every.totals.idle_j.sum(axis=1)
    return {
        arm: {stage.value: find_interval(joules[place, at]) for stage, at in ORDER.items()}
        for place, arm in enumerate(every.nights.arms)
    }


def _share(totals: Totals, arm: int, deadline_s: float) -> float | None:
    replied = int(totals.replied[arm])
    if not replied or not math.isfinite(deadline_s):
        return None
    return float(totals.flipped[arm].mean()) / replied
