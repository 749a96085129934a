"""A grid of values as numbered runs in one folder, which the same command finds again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import hydra
from hydra.errors import HydraException

from fleettune.records import read_json
from fleettune.whole_files import write_whole
from simulations.checkpoint.versions import read_own_file
from simulations.launch import split_jobs
from simulations.sweeps.kept_runs import KeptRun

GRID_FILE = "sweep.json"
"""File of a sweep's folder: the overrides of every run, by its number."""

Point = tuple[str, ...]
"""The overrides of one run."""


def list_points(overrides: Sequence[str]) -> list[Point]:
    """Returns one point for each combination of the values, in the order of Hydra's own sweeps.

    Raises:
        ValueError: If Hydra cannot read an override, or cannot list its values.
    """
    try:
        with hydra.initialize_config_module("conf", version_base="1.3"):
            points = [tuple(job) for job in split_jobs(overrides, sweep=True)]
    except HydraException as error:
        told = " ".join(str(error).split())
        raise ValueError(
            f"{told}; a sweep takes a,b or choice(a,b), range(1,5) and glob(*), and an interval "
            "belongs to `fleettune search`"
        ) from error
    return list(dict.fromkeys(points))


def digest_lines(lines: Sequence[str]) -> str:
    """Returns 8 hexadecimal digits that stand for lines, whatever their order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:8]


def number_runs(folder: Path, points: Sequence[Point]) -> list[KeptRun]:
    """Returns the runs of a folder's sweep in their order, and writes down new ones.

    A point keeps its number. Points that the folder does not have yet come behind its own, so a
    sweep can grow.

    Raises:
        ValueError: If the folder has a point that is not asked for.
    """
    file = folder / GRID_FILE
    known: list[Point] = []
    if file.exists():
        read = read_own_file(file, partial(read_json, where=GRID_FILE), list)
        known = [tuple(point) for point in cast(list[list[str]], read)]
    if others := [point for point in known if point not in points]:
        raise ValueError(
            f"{folder} holds another sweep, with the run {' '.join(others[0])}; choose another "
            "--into, or ask for that run as well"
        )
    numbered = [*known, *(point for point in points if point not in known)]
    if numbered != known:
        write_whole(file, json.dumps(numbered, indent=1).encode())
    return [
        KeptRun(folder=folder / str(number), overrides=point)
        for number, point in enumerate(numbered)
    ]


def describe_points(points: Sequence[Point]) -> list[str]:
    """Returns for every point the overrides that not all points share."""
    shared = set(points[0]).intersection(*points)
    return [" ".join(one for one in point if one not in shared) for point in points]
