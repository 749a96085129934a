"""Runs side by side: which settings differ, and what each arm of each run cost and reached."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import yaml
from rich.table import Table

from simulations.report.tables import (
    METRICS,
    arm_order,
    as_table,
    energy_range,
    percent_with_interval,
    with_interval,
)

ABSENT = "absent"
_FRAMEWORK = "hydra"
_UNKNOWN: Mapping[str, Any] = {"mean": None, "ci95": [None, None]}
_OPTION = "._target_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and its 95 % interval; None where unknown."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRow:
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
    """The finished run directories at or below the paths, each once, 2 before 10.

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


def compare_rows(paths: Sequence[Path]) -> list[CompareRow]:
    """One row per run and arm, runs in the order of `find_runs`, the reference arm first."""
    runs = find_runs(paths)
    names = _names(runs)
    overrides = _differences([_settings(run / "config.yaml") for run in runs])
    rows: list[CompareRow] = []
    for run, name, changed in zip(runs, names, overrides, strict=True):
        summary: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        rows += [_row(name, changed, arm, summary) for arm in arm_order(summary)]
    return rows


def compare(rows: Sequence[CompareRow]) -> Table:
    """The rows of `compare_rows` as a table for the terminal."""
    columns = [
        "run",
        "overrides",
        "arm",
        "quality [95 %]",
        "simulated energy (low to high)",
        "saving [95 %]",
        "serving left out [95 %]",
        "quality vs reference [95 %]",
    ]
    references = sorted({row.reference for row in rows})
    metrics = sorted({METRICS[row.metric] for row in rows})
    models = sorted({row.priced_as for row in rows})
    caption = (
        f"simulated joules, device-total ledger, priced as {' or '.join(models)}; low to high hold "
        "95 % of the draws of the coefficients; intervals of savings are over devices; quality is "
        f"{' or '.join(metrics)}; differences are paired per device against "
        f"{' or '.join(references)} of the same run"
    )
    return as_table(columns, [_cells(row) for row in rows], caption=caption)


def _cells(row: CompareRow) -> list[str]:
    is_reference = row.arm == row.reference
    return [
        row.run,
        "\n".join(f"{key}={value}" for key, value in row.overrides),
        row.arm,
        with_interval(_as_json(row.quality)),
        energy_range(row.energy_j, row.energy_low_j, row.energy_high_j),
        "reference" if is_reference else percent_with_interval(_as_json(row.saving)),
        "" if is_reference else percent_with_interval(_as_json(row.saving_without_serving)),
        "reference" if is_reference else with_interval(_as_json(row.quality_difference), "+.3f"),
    ]


def _row(
    run: str, overrides: tuple[tuple[str, str], ...], arm: str, summary: Mapping[str, Any]
) -> CompareRow:
    part = summary["arms"][arm]
    versus, joules = part["vs_reference"], part["energy_j"]
    return CompareRow(
        run=run,
        overrides=overrides,
        arm=arm,
        reference=versus["reference"],
        metric=part["quality"]["metric"],
        # runs of earlier versions do not say
        priced_as=summary["run"].get("priced_as", "unknown"),
        quality=_estimate(part["quality"]),
        energy_j=joules["total"],
        energy_low_j=joules["low"],
        energy_high_j=joules["high"],
        saving=_estimate(versus["energy_saving"]),
        # nor how much of a saving serving hides
        saving_without_serving=_estimate(versus.get("energy_saving_without_serving", _UNKNOWN)),
        quality_difference=_estimate(versus["quality_difference"]),
    )


def _estimate(part: Mapping[str, Any]) -> Estimate:
    return Estimate(mean=part["mean"], low=part["ci95"][0], high=part["ci95"][1])


def _as_json(estimate: Estimate) -> dict[str, Any]:
    return {"mean": estimate.mean, "ci95": [estimate.low, estimate.high]}


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


MEASURES: Mapping[str, Callable[[CompareRow], Estimate]] = {
    "saves energy": lambda row: row.saving,
    "saves energy, serving left out": lambda row: row.saving_without_serving,
    "differs in quality": lambda row: row.quality_difference,
}


def changed_conclusions(rows: Sequence[CompareRow]) -> list[str]:
    """Returns one sentence per conclusion whose sign is not the same in every run."""
    runs = list(dict.fromkeys(row.run for row in rows))
    by_run = {run: {row.arm: row for row in rows if row.run == run} for run in runs}
    shared = [arm for arm in by_run[runs[0]] if all(arm in arms for arms in by_run.values())]
    found: list[str] = []
    for measure, of in MEASURES.items():
        for arm in shared:
            signs = {run: sign(of(by_run[run][arm])) for run in runs}
            found += _told(f"{arm} {measure}", signs)
    for one, other in combinations(shared, 2):
        signs = {run: _cheaper(by_run[run][one], by_run[run][other]) for run in runs}
        found += _told(f"{one} uses more energy than {other}", signs)
    return found


def sign(estimate: Estimate) -> str:
    """Returns the sign of an estimate: +, - or 0; ? where it is unknown."""
    if estimate.low is None or estimate.high is None:
        return "?"
    if estimate.low > 0:
        return "+"
    return "-" if estimate.high < 0 else "0"


def _cheaper(one: CompareRow, other: CompareRow) -> str:
    if one.energy_j is None or other.energy_j is None:
        return "?"
    return "+" if one.energy_j > other.energy_j else "-" if one.energy_j < other.energy_j else "0"


def _told(conclusion: str, signs: Mapping[str, str]) -> list[str]:
    if len(set(signs.values())) == 1:
        return []
    return [f"{conclusion}: {', '.join(f'{run} {found}' for run, found in signs.items())}"]
