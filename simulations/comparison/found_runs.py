"""Finished runs as they lie in folders: what was typed, which settings held, what devices did."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
import yaml

from simulations.report.summary_tables import Summary, check_schema, get_metric
from simulations.results.device_means import PerDevice, drop_stage, reduce_by_device, split_arms

SEED = "seed"
WORLD = "study.world"
_LEFT_OUT = ("hydra", SEED, "resume")
"""Sections and keys in which two runs may differ and be of one setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRun:
    """A finished run.

    Attributes:
        name: The end of its path that tells it from the others.
        seed: The seed that it ran with.
        settings: Its configuration as dotted keys and plain values, without the seed.
        typed: What was typed to start it, value by key, in order; empty where that is not known.
        options: The option that was taken of each group; empty where that is not known.
        summary: Its ``summary.json``.
        arms: Joules and quality of every arm's devices; joules are simulated.
        unserved: The same, joules without those of serving.
        fleet: Number and profile of every device.
    """

    name: str
    seed: int
    settings: Mapping[str, str]
    typed: Mapping[str, str]
    options: Mapping[str, str]
    summary: Summary
    arms: Mapping[str, PerDevice]
    unserved: Mapping[str, PerDevice]
    fleet: tuple[tuple[int, str], ...]


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


def read_runs(paths: Sequence[Path]) -> list[FoundRun]:
    """Returns every run at or below the paths, in the order of `find_runs`.

    Raises:
        ValueError: If there is none, or another version wrote one.
    """
    folders = find_runs(paths)
    return [_read_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def _read_run(folder: Path, name: str) -> FoundRun:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    check_schema(summary, folder)
    rows = pl.read_parquet(folder / "rows.parquet")
    metric = get_metric(summary)
    parts = {arm: part for arm, part in split_arms(rows).items() if arm in summary["arms"]}
    fleet = rows.select("device", "profile").unique().sort("device", "profile")
    settings = _read_settings(folder)
    typed: list[str] = _read_yaml(folder / ".hydra" / "overrides.yaml") or []
    return FoundRun(
        name=name,
        seed=int(summary["run"]["seed"]),
        settings=settings,
        typed=dict(_split_typed(typed)) | _world_of(folder, settings),
        options=_read_options(folder / ".hydra" / "hydra.yaml"),
        summary=summary,
        arms={arm: reduce_by_device(parts[arm], metric) for arm in summary["arms"]},
        unserved={
            arm: reduce_by_device(drop_stage(parts[arm], "serve"), metric)
            for arm in summary["arms"]
        },
        fleet=tuple(fleet.iter_rows()),
    )


def _read_options(path: Path) -> dict[str, str]:
    framework: dict[str, Any] = _read_yaml(path) or {"hydra": {"runtime": {"choices": {}}}}
    chosen: dict[str, object] = framework["hydra"]["runtime"]["choices"]
    return {key: value for key, value in chosen.items() if isinstance(value, str)}


def _split_typed(typed: Sequence[str]) -> Iterator[tuple[str, str]]:
    for one in typed:
        key, _, value = one.lstrip("+").partition("=")
        if key not in _LEFT_OUT:
            yield key, value


def _read_settings(folder: Path) -> dict[str, str]:
    flat = _flatten(_read_yaml(folder / "config.yaml") or {}, "")
    kept = {key: value for key, value in flat.items() if key.split(".")[0] not in _LEFT_OUT}
    return kept | _world_of(folder, flat)


def _world_of(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Returns the world of a part of a study, which its configuration leaves to its folder."""
    of_study = settings.get("study.seeds", "[]") != "[]" and folder.name.startswith("seed_")
    named = of_study and f'"{folder.parent.name}"' in settings.get("study.worlds", "")
    return {WORLD: folder.parent.name} if named else {}


def _flatten(value: object, prefix: str) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        return {prefix: text}
    flat: dict[str, str] = {}
    for key, inner in cast("dict[object, object]", value).items():
        flat |= _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _read_yaml(path: Path) -> Any:  # noqa: ANN401 - YAML
    """Returns what a file holds; None without one."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def _names(runs: Sequence[Path]) -> list[str]:
    """Shortest trailing part of each path, the same depth for all, that tells the runs apart."""
    deepest = max(len(run.parts) for run in runs)
    depths = ([str(Path(*run.parts[-depth:])) for run in runs] for depth in range(1, deepest + 1))
    return next(names for names in depths if len(set(names)) == len(runs))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts run 2 before run 10."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]
