"""A run killed at a moment drawn by chance goes on to the same bytes, whatever computes it."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.faults.forked_runs import WITH_FLEET, fork, go_on, last_round
from tests.faults.table import settle

pytestmark = pytest.mark.faults

TRIALS = 10
STARTS = ("checkpoint/state.sqlite", "fleet_update_*.safetensors")
"""What a trial waits for, in turn: the run begins to compute, its first round is computed."""


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("one process", []),
        ("two workers", ["engine.workers=2"]),
        ("Ray", ["engine=ray", "engine.workers=2"]),
    ],
)
def test_a_moment_drawn_by_chance_is_a_good_one_to_die(
    name: str, given: list[str], whole: dict[str, str], tmp_path: Path
) -> None:
    arguments = [*WITH_FLEET, *given]
    timed = fork(tmp_path / "whole", arguments)
    began = [wait_for(tmp_path / "whole", start) for start in STARTS]
    assert timed.wait() == 0
    ended = time.monotonic()
    rng = np.random.default_rng(17)
    outcomes: dict[object, str] = {}
    fell: Counter[int] = Counter()
    while len(outcomes) < TRIALS:
        folder = tmp_path / f"killed_{len(outcomes)}"
        start = len(outcomes) % len(STARTS)
        moment_s = float(rng.uniform(0.0, ended - began[start]))
        run = fork(folder, arguments)
        wait_for(folder, STARTS[start])
        time.sleep(moment_s)
        code = run.kill()
        if code == -signal.SIGKILL:  # else it was faster than the one that was timed
            fell[last_round(folder) + 1] += 1
            outcomes[f"{moment_s:.2f} s behind {STARTS[start]}"] = go_on(folder, arguments, whole)
        shutil.rmtree(folder)
    rounds = ", ".join(f"{count} with {done} rounds done" for done, count in sorted(fell.items()))
    settle(f"kill -9 at a seeded moment, {name}", outcomes, f"killed: {rounds}")


def wait_for(folder: Path, pattern: str) -> float:
    """Waits until a run has a file, and returns the time."""
    while not any((folder / "run").glob(pattern)):
        time.sleep(0.01)
    return time.monotonic()
