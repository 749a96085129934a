"""Runs folded: those that differ in their seed alone are one setting, equal arms are one line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulations.comparison.found_runs import FoundRun
from simulations.comparison.typed_names import ABSENT, list_differences, name_arm
from simulations.report.summary_tables import get_metric, get_reference
from simulations.results.device_means import APART, PerDevice, compare_arms, estimate_mean

Estimate = Mapping[str, Any]
"""A ``mean`` and its 95 % interval ``ci95``, as in summary.json; None where unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Runs that differ in their seed alone.

    Attributes:
        name: What tells it from the other settings, as it was typed; empty for the only one.
        runs: Its runs by seed, ascending.
        differences: What the name is made of.
    """

    name: str
    runs: Mapping[int, FoundRun]
    differences: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An arm of one setting over its seeds, or of several in which it did the very same.

    Attributes:
        name: What it is called, as it was typed.
        arm: The name of the arm in its runs.
        settings: The names of its settings.
        runs: Its runs by seed, ascending; those of the first of its settings.
        devices: Joules and quality of all devices; those of another seed are other devices.
        quality: Mean headline quality over devices, with its interval.
        quality_by_seed: The same by seed, without an interval; None where unknown.
        energy_by_seed: Simulated joules of all devices of a run, by seed, device-total ledger.
        energy_j: Their mean, a low and a high end from the coefficients; None where unknown.
        tiers: Shares of the tiers that decide the joules.
        reference: The name of its reference arm.
        saving: Share of the joules of the reference of its own runs that it saves.
        saving_unserved: The same without the joules of serving.
        quality_change: Its quality minus that of the reference.
    """

    name: str
    arm: str
    settings: tuple[str, ...]
    runs: Mapping[int, FoundRun]
    devices: PerDevice
    quality: Estimate
    quality_by_seed: Mapping[int, float | None]
    energy_by_seed: Mapping[int, float | None]
    energy_j: tuple[float | None, float | None, float | None]
    tiers: Mapping[str, float]
    reference: str
    saving: Estimate
    saving_unserved: Estimate
    quality_change: Estimate

    @property
    def is_reference(self) -> bool:
        """Whether its own runs are compared with it."""
        return self.arm == self.reference

    @property
    def worst_quality(self) -> float | None:
        """The quality of its worst seed; None where one is unknown."""
        values = [value for value in self.quality_by_seed.values() if value is not None]
        return min(values) if len(values) == len(self.quality_by_seed) else None


def fold_seeds(runs: Sequence[FoundRun]) -> list[Setting]:
    """Returns the settings of runs in the order in which they come; a repeated run counts once.

    Raises:
        ValueError: If two runs of one setting and seed did not do the same.
    """
    grouped: dict[tuple[tuple[str, str], ...], dict[int, FoundRun]] = {}
    for run in runs:
        seeds = grouped.setdefault(tuple(sorted(run.settings.items())), {})
        known = seeds.setdefault(run.seed, run)
        if not _is_same_run(known, run):
            raise ValueError(
                f"{known.name} and {run.name} have the same settings and seed {run.seed} but not "
                "the same rows, so another version wrote one of them: leave one out"
            )
    firsts = [next(iter(seeds.values())) for seeds in grouped.values()]
    return [
        Setting(
            name=" ".join(f"{key}={value}" for key, value in words.items()),
            runs=dict(sorted(seeds.items())),
            differences=words,
        )
        for seeds, words in zip(grouped.values(), list_differences(firsts), strict=True)
    ]


def fold_arms(settings: Sequence[Setting]) -> list[Line]:
    """Returns a line per arm and setting, references first; an arm that did the same, once.

    An arm did the same in two settings if every device of every seed that both have used the same
    joules and came to the same quality, to the last bit.
    """
    groups: list[tuple[str, list[Setting]]] = []
    for setting in settings:
        for arm in next(iter(setting.runs.values())).summary["arms"]:
            same = (
                members
                for name, members in groups
                if name == arm and _is_same_arm(arm, members[0], setting)
            )
            group = next(same, None)
            if group is None:
                groups.append((arm, [setting]))
            else:
                group.append(setting)
    seeds = sorted({seed for setting in settings for seed in setting.runs})
    names = _name_lines(groups)
    lines = [_fold(name, *group, seeds) for name, group in zip(names, groups, strict=True)]
    return sorted(lines, key=lambda line: not line.is_reference)


def _name_lines(groups: Sequence[tuple[str, list[Setting]]]) -> list[str]:
    names: list[str] = []
    for arm, members in groups:
        every = [one for name, others in groups if name == arm for one in others]
        words = {key: _join(key, members, every) for key in members[0].differences}
        kept = {key: value for key, value in words.items() if value}
        names.append(name_arm(next(iter(members[0].runs.values())), arm, kept))
    # rarely two lines are told apart by a policy that is not theirs alone
    return [
        f"{name} ({members[0].name})" if names.count(name) > 1 else name
        for name, (_, members) in zip(names, groups, strict=True)
    ]


def _join(key: str, members: Sequence[Setting], every: Sequence[Setting]) -> str:
    """Returns a key's values in some settings, as a sweep is typed; "" if it makes no difference.

    It makes none where the arm did the same under all of several values.
    """
    here, all_ = (
        list(dict.fromkeys(one.differences.get(key, ABSENT) for one in settings))
        for settings in (members, every)
    )
    return "" if len(all_) > 1 and set(here) == set(all_) else ",".join(here)


def _fold(name: str, arm: str, members: Sequence[Setting], seeds: Sequence[int]) -> Line:
    runs: dict[int, FoundRun] = {}
    for setting in members:
        runs = dict(setting.runs) | runs
    runs = dict(sorted(runs.items()))
    key = min(runs)
    reference = get_reference(runs[key].summary)
    devices = _pool(runs, seeds, arm, served=True)
    versus = compare_arms(devices, _pool(runs, seeds, reference, served=True), key)
    here, there = (_pool(runs, seeds, one, served=False) for one in (arm, reference))
    parts = {seed: run.summary["arms"][arm] for seed, run in runs.items()}
    joules = [part["energy_j"] for part in parts.values()]
    total, low, high = (_average([one[end] for one in joules]) for end in ("total", "low", "high"))
    return Line(
        name=name,
        arm=arm,
        settings=tuple(setting.name for setting in members),
        runs=runs,
        devices=devices,
        quality=estimate_mean(devices.quality, devices.devices, key),
        quality_by_seed={seed: part["quality"]["mean"] for seed, part in parts.items()},
        energy_by_seed={seed: part["energy_j"]["total"] for seed, part in parts.items()},
        energy_j=(total, low, high),
        tiers=_average_tiers([one["ledgers"]["device_total"]["tiers"] for one in joules]),
        reference=reference,
        saving=versus["energy_saving"],
        saving_unserved=compare_arms(here, there, key)["energy_saving"],
        quality_change=versus["quality_difference"],
    )


def _pool(
    runs: Mapping[int, FoundRun], seeds: Sequence[int], arm: str, *, served: bool
) -> PerDevice:
    """Returns the devices of an arm over seeds, numbered so that those of two seeds differ."""
    parts = {seed: (run.arms if served else run.unserved)[arm] for seed, run in runs.items()}
    numbers = [part.devices + APART * seeds.index(seed) for seed, part in parts.items()]
    return PerDevice(
        devices=np.concatenate(numbers),
        energy_j=np.concatenate([part.energy_j for part in parts.values()]),
        quality=np.concatenate([part.quality for part in parts.values()]),
    )


def _is_same_arm(arm: str, one: Setting, other: Setting) -> bool:
    shared = one.runs.keys() & other.runs.keys()
    return bool(shared) and all(
        arm in run.arms and arm in there.arms and _is_equal(run.arms[arm], there.arms[arm])
        for seed in shared
        for run, there in [(one.runs[seed], other.runs[seed])]
    )


def _is_same_run(one: FoundRun, other: FoundRun) -> bool:
    return one.arms.keys() == other.arms.keys() and all(
        _is_equal(one.arms[arm], other.arms[arm]) for arm in one.arms
    )


def _is_equal(one: PerDevice, other: PerDevice) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ("devices", "energy_j", "quality")
    )


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _average_tiers(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean share of every tier; none where a run has none."""
    if not all(shares):
        return {}
    return {tier: math.fsum(one[tier] for one in shares) / len(shares) for tier in shares[0]}


def get_runs_metric(line: Line) -> str:
    """Returns the headline metric of a line's runs."""
    return get_metric(next(iter(line.runs.values())).summary)
