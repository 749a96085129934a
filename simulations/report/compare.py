"""Runs side by side: which settings differ, and what each arm of each run cost and reached."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import yaml
from rich.table import Table

from simulations.experiment.headlines import HEADLINES
from simulations.report.formats import format_interval, format_joules_range, format_share_interval
from simulations.report.page import Row
from simulations.report.summary_tables import Summary, order_arms
from simulations.report.terminal_tables import make_table

ABSENT = "absent"
_FRAMEWORK = "hydra"
_UNKNOWN: Mapping[str, Any] = {"mean": None, "ci95": [None, None]}
_OPTION = "._target_"

Estimate = Mapping[str, Any]
"""A ``mean`` and its 95 % interval ``ci95``, as in summary.json; None where unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedArm:
    """One arm of one run; overrides are the settings in which the compared runs differ."""

    run: str
    overrides: tuple[tuple[str, str], ...]
    arm: str
    reference: str
    metric: str
    priced_as: str
    quality: Estimate
    energy_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    saving: Estimate
    saving_without_serving: Estimate
    quality_difference: Estimate


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Returns the finished run directories at or below the paths, each once, 2 before 10.

    Raises:
        ValueError: If a path holds no finished run.
    """
    found: dict[Path, None] = {}
    for path in paths:
        inside = sorted((file.parent for file in path.rglob("summary.json")), key=_natural)
        if not inside:
            raise ValueError(
                f"no finished run at or below {path}: a run directory holds summary.json, "
                "which is written when the run ends"
            )
        found.update(dict.fromkeys(run.resolve() for run in inside))
    if not found:
        raise ValueError("no run to compare: name at least one run directory")
    return list(found)


def compare_runs(paths: Sequence[Path]) -> list[ComparedArm]:
    """Returns every arm of every run, runs in the order of `find_runs`, the reference arm first."""
    runs = find_runs(paths)
    names = _names(runs)
    overrides = _differences([_settings(run / "config.yaml") for run in runs])
    arms: list[ComparedArm] = []
    for run, name, changed in zip(runs, names, overrides, strict=True):
        summary: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        arms += [_read_arm(name, changed, arm, summary) for arm in order_arms(summary)]
    return arms


def _read_arm(
    run: str, overrides: tuple[tuple[str, str], ...], arm: str, summary: Summary
) -> ComparedArm:
    part = summary["arms"][arm]
    versus, joules = part["vs_reference"], part["energy_j"]
    return ComparedArm(
        run=run,
        overrides=overrides,
        arm=arm,
        reference=versus["reference"],
        metric=part["quality"]["metric"],
        # runs of earlier versions do not say
        priced_as=summary["run"].get("priced_as", "unknown"),
        quality=part["quality"],
        energy_j=joules["total"],
        energy_low_j=joules["low"],
        energy_high_j=joules["high"],
        saving=versus["energy_saving"],
        # nor how much of a saving serving hides
        saving_without_serving=versus.get("energy_saving_without_serving", _UNKNOWN),
        quality_difference=versus["quality_difference"],
    )


def make_comparison_table(arms: Sequence[ComparedArm]) -> Table:
    """Returns the arms of `compare_runs` as a table for the terminal."""
    references = sorted({one.reference for one in arms})
    metrics = sorted({HEADLINES[one.metric].words for one in arms})
    models = sorted({one.priced_as for one in arms})
    caption = (
        f"simulated joules, device-total ledger, priced as {' or '.join(models)}; low to high hold "
        "95 % of the draws of the coefficients; intervals of savings are over devices; quality is "
        f"{' or '.join(metrics)}; differences are paired per device against "
        f"{' or '.join(references)} of the same run"
    )
    return make_table([_tabulate(one) for one in arms], caption)


def _tabulate(one: ComparedArm) -> Row:
    saving = format_share_interval(one.saving)
    unserved = format_share_interval(one.saving_without_serving)
    difference = format_interval(one.quality_difference, "+.3f")
    if one.arm == one.reference:
        saving, unserved, difference = "reference", "", "reference"
    return {
        "run": one.run,
        "overrides": "\n".join(f"{key}={value}" for key, value in one.overrides),
        "arm": one.arm,
        "quality [95 %]": format_interval(one.quality),
        "simulated energy (low to high)": format_joules_range(
            one.energy_j, one.energy_low_j, one.energy_high_j
        ),
        "saving [95 %]": saving,
        "serving left out [95 %]": unserved,
        "quality vs reference [95 %]": difference,
    }


def _names(runs: Sequence[Path]) -> list[str]:
    """Shortest trailing part of each path, the same depth for all, that tells the runs apart."""
    deepest = max(len(run.parts) for run in runs)
    depths = ([str(Path(*run.parts[-depth:])) for run in runs] for depth in range(1, deepest + 1))
    return next(names for names in depths if len(set(names)) == len(runs))


def _differences(settings: Sequence[Mapping[str, str]]) -> list[tuple[tuple[str, str], ...]]:
    keys = sorted({key for one in settings for key in one})
    differing = [key for key in keys if len({one.get(key, ABSENT) for one in settings}) > 1]
    # where two options of a group differ, the option says it all; its fields need not be listed
    groups = [key.removesuffix(_OPTION) for key in differing if key.endswith(_OPTION)]
    shown = [
        key
        for key in differing
        if key.endswith(_OPTION) or not key.startswith(tuple(f"{group}." for group in groups))
    ]
    return [
        tuple(
            (key.removesuffix(_OPTION), one.get(key, ABSENT).rpartition(".")[2])
            if key.endswith(_OPTION)
            else (key, one.get(key, ABSENT))
            for key in shown
        )
        for one in settings
    ]


def _settings(path: Path) -> dict[str, str]:
    """A config file as dotted keys and plain values, without the framework's own section."""
    loaded = cast("object", yaml.safe_load(path.read_text(encoding="utf-8")))
    flat = _flatten(loaded, "")
    return {key: value for key, value in flat.items() if key.split(".")[0] != _FRAMEWORK}


def _flatten(value: object, prefix: str) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        return {prefix: text}
    flat: dict[str, str] = {}
    for key, inner in cast("dict[object, object]", value).items():
        flat |= _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts run 2 before run 10."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]


_CONCLUSIONS: Mapping[str, Callable[[ComparedArm], Estimate]] = {
    "saves energy": lambda one: one.saving,
    "saves energy, serving left out": lambda one: one.saving_without_serving,
    "differs in quality": lambda one: one.quality_difference,
}


def find_changed_conclusions(arms: Sequence[ComparedArm]) -> list[str]:
    """Returns one sentence per conclusion whose sign is not the same in every run."""
    runs = list(dict.fromkeys(one.run for one in arms))
    by_run = {run: {one.arm: one for one in arms if one.run == run} for run in runs}
    shared = [arm for arm in by_run[runs[0]] if all(arm in known for known in by_run.values())]
    found: list[str] = []
    for conclusion, of in _CONCLUSIONS.items():
        for arm in shared:
            signs = {run: get_sign(of(by_run[run][arm])) for run in runs}
            found += _state_signs(f"{arm} {conclusion}", signs)
    for one, other in combinations(shared, 2):
        signs = {run: _compare_joules(by_run[run][one], by_run[run][other]) for run in runs}
        found += _state_signs(f"{one} uses more energy than {other}", signs)
    return found


def get_sign(estimate: Estimate) -> str:
    """Returns the sign of an estimate: +, - or 0; ? where it is unknown."""
    low, high = estimate["ci95"]
    if low is None or high is None:
        return "?"
    if low > 0:
        return "+"
    return "-" if high < 0 else "0"


def _compare_joules(one: ComparedArm, other: ComparedArm) -> str:
    if one.energy_j is None or other.energy_j is None:
        return "?"
    return "+" if one.energy_j > other.energy_j else "-" if one.energy_j < other.energy_j else "0"


def _state_signs(conclusion: str, signs: Mapping[str, str]) -> list[str]:
    """Returns a conclusion with its sign in every run; nothing where it is the same in all."""
    if len(set(signs.values())) == 1:
        return []
    return [f"{conclusion}: {', '.join(f'{run} {sign}' for run, sign in signs.items())}"]
