"""The command ``fleettune sweep``."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rich.console import Console

from simulations.sweeps.grid import (
    GRID_FILE,
    describe_points,
    digest_lines,
    list_points,
    number_runs,
)
from simulations.sweeps.kept_runs import (
    KeptRun,
    check_run,
    count_states,
    hold_folder,
    read_own_overrides,
)
from simulations.sweeps.running import run_in_turn, run_together

_EPILOG = """\
Every combination of the values is one run, in a numbered folder. The same
command again does what is missing: it leaves finished runs alone and resumes
the others. Values are written as Hydra writes them: a,b range(1,5) glob(edge*).

Example:
  fleettune sweep seed=1,2 adaptation=always_reuse,edgetune --jobs 2
"""


def make_sweep_parser() -> argparse.ArgumentParser:
    """Returns the parser of what is the sweep's own; all else on its line is Hydra's."""
    parser = argparse.ArgumentParser(
        prog="fleettune sweep",
        usage="fleettune sweep key=value,value ... [--into FOLDER] [--jobs N]",
        description="Runs a grid of values, and goes on where it was stopped.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="outputs/sweep/DIGEST OF THE VALUES by default"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time, one worker each (1)"
    )
    return parser


def sweep(arguments: Sequence[str]) -> int:
    """Runs what is missing of a sweep; returns 0, or 2 if a run failed or it was stopped.

    Raises:
        ValueError: If the command line or one of its runs breaks a rule; nothing runs then.
    """
    own, others = make_sweep_parser().parse_known_args(arguments)
    jobs = cast(int, own.jobs)
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1 run at a time, got {jobs}")
    points = list_points(read_own_overrides(others))
    digest = digest_lines([" ".join(point) for point in points])
    folder = cast("Path | None", own.into) or Path("outputs") / "sweep" / digest
    with hold_folder(folder, GRID_FILE):
        return _run_missing(number_runs(folder, points), folder, jobs)


def _run_missing(runs: Sequence[KeptRun], folder: Path, jobs: int) -> int:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for run in runs:
        check_run(run)
    console.print(f"sweep of {len(runs)} runs in {folder}: {count_states(runs)}")
    names = dict(zip(runs, describe_points([run.overrides for run in runs]), strict=True))

    def told(run: KeptRun, what: str) -> None:
        console.print(f"run {run.folder.name} ({names[run]}): {what}")

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = run_in_turn(runs, told) if jobs == 1 else run_together(runs, jobs, told)
    except (KeyboardInterrupt, SystemExit):
        console.print("The sweep was stopped; the same command goes on with it.")
        return 2
    if failed:
        numbers = ", ".join(run.folder.name for run in failed)
        console.print(f"Not finished: {numbers}. The same command tries them again.")
    console.print(f"Runs: {folder}\nCompare them: fleettune compare {folder}")
    return 2 if failed else 0
