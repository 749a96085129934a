"""A run that is stopped says how it goes on, and does; a clock that jumps changes nothing."""

from __future__ import annotations

import os
import signal
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from tests.faults.forked_runs import (
    EQUAL,
    REFUSED,
    WITH_FLEET,
    errors,
    fork,
    go_on,
    judge,
    ran,
)
from tests.faults.table import settle
from tests.faults.test_seeded_kills import STARTS, wait_for

pytestmark = pytest.mark.faults

STOPPED = "stopped in one sentence with its resume=, then equal bytes"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_a_run_that_is_stopped_says_how_it_goes_on_and_does(
    number: signal.Signals, whole: dict[str, str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    outcomes: dict[object, str] = {}
    for trial in range(8):
        folder = tmp_path / str(trial)
        given = ["engine.workers=2"] if trial % 4 == 3 else []
        run = fork(folder, [*WITH_FLEET, *given])
        wait_for(folder, STARTS[0])
        time.sleep(float(rng.uniform(0.1, 1.5)))
        os.kill(run.pid, number)
        code, told = run.wait(), run.told.read_text()
        found = judge(folder, code, told, whole)
        if found == REFUSED:
            said = errors(told)[0]
            can_go_on = "go on with resume=" in said or "the run is complete" in said
            found = go_on(folder, WITH_FLEET, whole) if can_go_on else "wrong"
            found = STOPPED if found == EQUAL else found
        outcomes[trial] = found
    settle(f"{number.name} at a seeded moment", outcomes)


@pytest.mark.parametrize("days", [4000, -400])
def test_a_clock_that_jumps_changes_no_byte(
    days: int, whole: dict[str, str], tmp_path: Path
) -> None:
    real, calls = time.time, count()

    def jump() -> None:
        time.time = lambda: real() + (next(calls) % 2) * days * 86_400

    code, told = ran(tmp_path / "jumps", WITH_FLEET, jump)
    settle(
        f"a clock that jumps by {days} days", {days: judge(tmp_path / "jumps", code, told, whole)}
    )
