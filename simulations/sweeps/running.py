"""Runs what is missing of several runs, in this process or several at a time in their own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path

from simulations.engines.environment import set_environment
from simulations.engines.worker_pool import follow_driver
from simulations.launch import launch
from simulations.sweeps.kept_runs import KeptRun, list_missing_steps

ONE_WORKER = "engine.workers=1"

Told = Callable[[KeptRun, str], None]
"""Is told of a run that began or ended, and what became of it."""


def run_in_turn(runs: Sequence[KeptRun], told: Told) -> list[KeptRun]:
    """Runs what is missing, one run after the other; returns the runs that failed."""
    failed: list[KeptRun] = []
    for run in runs:
        if steps := list_missing_steps(run):
            told(run, "resumes" if run.is_begun else "begins")
            if launch(steps):
                failed.append(run)
    return failed


def run_together(runs: Sequence[KeptRun], jobs: int, told: Told) -> list[KeptRun]:
    """Runs what is missing, several runs at a time; returns the runs that failed.

    Each run is a process of its own with one worker. What it prints goes to a file beside its
    folder. The processes end with this one, also if it is killed.
    """
    missing = {
        run: [*steps, *([] if _says_workers(run) else [ONE_WORKER])]
        for run in runs
        if (steps := list_missing_steps(run))
    }
    failed: list[KeptRun] = []
    with ThreadPoolExecutor(jobs) as pool:
        begun = {pool.submit(_run_apart, run, steps): run for run, steps in missing.items()}
        try:
            for done in as_completed(begun):
                code, seconds = done.result()
                run = begun[done]
                if code:
                    failed.append(run)
                told(run, _last_line(run) if code else f"is finished, {seconds:.0f} s")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise
    return failed


def output_file(run: KeptRun) -> Path:
    """Returns the file beside a run's folder that holds what its process printed."""
    return run.folder.with_name(f"{run.folder.name}.txt")


def _says_workers(run: KeptRun) -> bool:
    return any(one.lstrip("+").startswith("engine.workers=") for one in run.overrides)


def _run_apart(run: KeptRun, steps: Sequence[str]) -> tuple[int, float]:
    """Returns the exit code of a run's process, and its seconds."""
    began = time.monotonic()
    process = get_context("spawn").Process(target=_begin, args=(output_file(run), list(steps)))
    process.start()
    process.join()
    # a process that was killed has the negative number of the signal
    return int(process.exitcode or 0), time.monotonic() - began


def _begin(output: Path, steps: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the driver tells by SIGTERM
    set_environment()
    follow_driver()
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        sys.exit(launch(steps))


def _last_line(run: KeptRun) -> str:
    """Returns the last line that a run printed; what became of it if it printed none."""
    lines = output_file(run).read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "was killed")
