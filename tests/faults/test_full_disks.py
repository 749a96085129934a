"""A disk that is full or read-only ends a run in one sentence; with room again it goes on."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.faults.forked_runs import (
    EQUAL,
    REFUSED,
    WITH_FLEET,
    go_on,
    judge,
    ran,
)
from tests.faults.table import settle

pytestmark = pytest.mark.faults


def mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-o", ",".join(options), "-t", "tmpfs", "tmpfs", folder], check=True)


@contextmanager
def disk(folder: Path, *options: str) -> Iterator[None]:
    """Makes a folder a small disk of its own, in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mount(folder, *options)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))


def broke_off(folder: Path, code: int, told: str, whole: dict[str, str]) -> str:
    """Returns what came of a run that met a full disk, and of its rest with room again."""
    found = judge(folder, code, told, whole)
    if found != REFUSED:
        return found
    found = go_on(folder, WITH_FLEET, whole)
    return found if found != EQUAL else "refused in one sentence; with room equal bytes"


def test_a_full_disk_is_one_sentence_and_with_room_the_run_goes_on(
    undisturbed: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    outcomes: dict[object, str] = {}
    for size in np.linspace(4096, bytes_of(undisturbed), 14).astype(int):
        folder = tmp_path / str(size)
        with disk(folder, f"size={size}"):
            code, told = ran(folder, WITH_FLEET)
            mount(folder, "remount", "size=1g")
            outcomes[f"{size} bytes"] = broke_off(folder, code, told, whole)
    settle("a full disk (a small file system in memory)", outcomes)


def test_a_file_that_may_not_grow_is_one_sentence_and_later_the_run_goes_on(
    undisturbed: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    largest = max(file.stat().st_size for file in undisturbed.rglob("*") if file.is_file())
    outcomes: dict[object, str] = {}
    # less would cut off the sentence as well
    for size in np.linspace(8192, largest - 1, 10).astype(int):
        folder = tmp_path / str(size)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (int(size), int(size)))
        code, told = ran(folder, WITH_FLEET, limit)
        outcomes[f"{size} bytes"] = broke_off(folder, code, told, whole)
    settle("a file that may not grow (RLIMIT_FSIZE)", outcomes)


def test_a_read_only_folder_is_one_sentence_and_later_the_run_goes_on(
    undisturbed: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    assert undisturbed.exists()
    outcomes: dict[object, str] = {}
    for name in ("run", "store"):
        folder = tmp_path / name
        place = folder / name
        with disk(place, "ro"):
            code, told = ran(folder, WITH_FLEET)
            mount(place, "remount", "rw")
            if name == "run":  # nothing of it was begun
                assert os.listdir(place) == []  # noqa: PTH208 - a mount point
                code_after, told_after = ran(folder, WITH_FLEET)
                refused = judge(folder, code, told, whole)
                after = judge(folder, code_after, told_after, whole)
                outcomes[name] = "refused in one sentence; with room equal bytes"
                outcomes[name] = outcomes[name] if (refused, after) == (REFUSED, EQUAL) else "wrong"
            else:
                outcomes[name] = broke_off(folder, code, told, whole)
    settle("a read-only folder", outcomes)
