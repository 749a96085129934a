"""Whole runs as forked processes that may die, be stopped or meet a fault; and what came of them.

A fork has all imports behind it, which take longer than a run of this size. What a test wants to
happen inside it is a function that the fork calls first.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import logging
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from transformers.utils import logging as transformers_logging

from simulations.checkpoint.resume import CHECKPOINT, STATE_FILE
from simulations.experiment import lexicons
from simulations.launch import check_all

FLEET = [
    *("data=synthetic_v1", "model=pocket_v1", "fleet=single"),
    "fleet.devices=2",
    "rounds=3",
    "tuning.steps=2",
    "data.exchanges_per_day=2",
    "data.history_days=2",
    "engine.workers=1",
    "engine.cohort_size=2",
    "adaptation=always_retune",
    "fleet_patch=start",
    "release.every=1",
    "store=store",
    "hydra.run.dir=run",
]
"""Two devices, three rounds, three releases; its folders stand where it was started."""

MILD = (
    "{name: mild, kind: full, steps: 2, learning_rate: 3.0e-4, batch: 2, window: 16, "
    "conversations: 50}"
)
WITH_FLEET = [*FLEET, f"release.plans=[{MILD},{{name: with_fleet, kind: merged_fleet}}]"]
"""The second release is trained; what the fleet learned is folded into the third."""

LIMIT_S = 300
log = logging.getLogger(__name__)

Prepare = Callable[[], None]


def nothing() -> None:
    """A fork without a fault."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A command line in a process of its own.

    Attributes:
        pid: Its process.
        folder: Where it was started.
        told: What it wrote to its standard error.
    """

    pid: int
    folder: Path
    told: Path

    def wait(self) -> int:
        """Returns its exit code, as Popen does: -9 for a process that was killed."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise TimeoutError(f"a run took more than {LIMIT_S} s: {self.folder}")

    def kill(self) -> int:
        """Kills it as `kill -9` does, and then what it started; returns the exit code."""
        started: list[psutil.Process] = []
        with suppress(psutil.Error):
            started = psutil.Process(self.pid).children(recursive=True)
        os.kill(self.pid, signal.SIGKILL)
        code = self.wait()
        # workers end by themselves within seconds; Ray's own processes take longer than a test
        for process in psutil.wait_procs(started, timeout=5)[1]:
            with suppress(psutil.Error):
                process.kill()
        return code


def fork(folder: Path, arguments: list[str], prepare: Prepare = nothing) -> Run:
    """Starts a command line of `python -m simulations` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    told = _beside(folder)
    pid = os.fork()
    if pid == 0:
        _live(folder, told, lambda: _launch(arguments, prepare))
    return Run(pid=pid, folder=folder, told=told)


def _beside(folder: Path) -> Path:
    """Returns a new file beside a folder, whose own disk may be full."""
    return folder.with_name(f"{folder.name}_told_{time.monotonic_ns()}")


def _launch(arguments: list[str], prepare: Prepare) -> int:
    from simulations.launch import launch  # noqa: PLC0415 - imported once, by the first fork

    # as the command does by `set_environment`, which comes too late here: they are imported
    transformers_logging.disable_progress_bar()
    prepare()
    try:
        return launch(arguments)
    finally:
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            ray.shutdown()


def _live(folder: Path, told: Path, do: Callable[[], int]) -> None:
    """What the fork does instead of going on with the tests."""
    code = 1
    try:
        os.chdir(folder)
        for number, place in ((1, os.devnull), (2, told)):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT, 0o666), number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist ignores it
        warnings.resetwarnings()  # pytest's own make errors of them
        warnings.simplefilter("ignore")
        code = do()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        with suppress(OSError):
            traceback.print_exc()
    finally:
        os._exit(code)


def ran(folder: Path, arguments: list[str], prepare: Prepare = nothing) -> tuple[int, str]:
    """Returns a run's exit code and what it wrote to its standard error."""
    run = fork(folder, arguments, prepare)
    code = run.wait()
    return code, run.told.read_text(errors="replace")


def reported(folder: Path) -> int:
    """Writes the page of the run of a folder again; returns the exit code."""

    def write_page() -> int:
        from simulations.cli import main  # noqa: PLC0415 - as above

        return main(["report", "run"])

    told = _beside(folder)
    pid = os.fork()
    if pid == 0:
        _live(folder, told, write_page)
    return Run(pid=pid, folder=folder, told=told).wait()


def warm_up(folder: Path, arguments: list[str]) -> None:
    """Runs a command line and imports here what it imported there, so that later forks have it.

    They also read YAML with the C form of its loader: composing takes longer than such a run.
    """

    def note_modules() -> int:
        code = _launch(arguments, nothing)
        (folder / "modules").write_text("\n".join(sys.modules))
        return code

    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        _live(folder, folder / "told", note_modules)
    code = Run(pid=pid, folder=folder, told=folder / "told").wait()
    assert code == 0, (folder / "told").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in (folder / "modules").read_text().splitlines():
            with suppress(Exception):
                importlib.import_module(name)
    yaml.SafeLoader = yaml.CSafeLoader  # pyright: ignore[reportAttributeAccessIssue] - as said
    lexicons.register_resolver()
    check_all(arguments, sweep=False)  # fills what Hydra keeps in memory
    # no model is loaded here: the lock of its progress bar would be shared with forks that die
    gc.collect()
    gc.freeze()  # forks do not look through what was imported


def results_of(folder: Path, name: str = "run") -> dict[str, str]:
    """Returns the digest of every table and every set of factors of the run of a folder."""
    run = folder / name
    files = [*run.rglob("*.parquet"), *run.rglob("*.safetensors"), run / "fleet_patches.json"]
    return {
        str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


def last_round(folder: Path) -> int:
    """Returns the newest round that the run of a folder committed; -1 where there is none."""
    checkpoint = folder / "run" / CHECKPOINT
    if not (folder / "run" / STATE_FILE).exists():
        return -1
    with tempfile.TemporaryDirectory() as copy:  # to look into a database is to change its files
        shutil.copytree(checkpoint, copy, dirs_exist_ok=True)
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"{copy}/state.sqlite")) as db:
            (found,) = db.execute("SELECT max(round) FROM server_state").fetchone()
            return -1 if found is None else int(found)
    return -1


def errors(told: str) -> list[str]:
    """Returns the sentences that a command told its user."""
    return [line for line in told.splitlines() if line.startswith("error:")]


def is_one_sentence(code: int, told: str) -> bool:
    """Whether a command ended as bad input or a fault outside does."""
    return code == 2 and len(errors(told)) == 1 and "Traceback" not in told


EQUAL = "ended with equal bytes"
REFUSED = "refused in one sentence"
ANEW = "nothing was begun; a new run ended with equal bytes"
FINISHED = "all results were there; what was left was finished"
BAD = ("silent", "lost", "wrong")
"""Other bytes with exit code 0; rounds or results that are gone; a traceback or texts that stay."""


def judge(folder: Path, code: int, told: str, whole: dict[str, str]) -> str:
    """Returns what a run's end is: good, refused, or one of `BAD`."""
    if code == 0:
        texts = (folder / "run" / CHECKPOINT).exists()
        return "wrong" if texts else EQUAL if results_of(folder) == whole else "silent"
    return REFUSED if is_one_sentence(code, told) else "wrong"


def go_on(folder: Path, given: list[str], whole: dict[str, str]) -> str:
    """Resumes a run that was cut off and returns what came of it; prints what was told if bad.

    Args:
        folder: Where it was started.
        given: Its command line, for a run that had not begun yet.
        whole: The results of the run that nobody cut off.
    """
    before, run = last_round(folder), folder / "run"
    if not (run / "config.yaml").exists():
        code, told = ran(folder, [*given, "hydra.run.dir=run_anew"])
        if run.exists():
            run.rename(folder / "cut_off")
        (folder / "run_anew").rename(run)
        found = judge(folder, code, told, whole)
        return _printed(ANEW if found == EQUAL and before < 0 else found, told)
    code, told = ran(folder, ["resume=run"])
    found = judge(folder, code, told, whole)
    if found != REFUSED:
        return _printed(found, told)
    if "finished run" not in told and "complete run" not in told:
        return _printed("lost", told)
    is_whole = results_of(folder) == whole and not (run / CHECKPOINT).exists()
    written = reported(folder) == 0 and (run / "report.html").stat().st_size > 10_000
    return _printed(FINISHED if is_whole and written else "lost", told)


def _printed(found: str, told: str) -> str:
    if found in BAD:
        log.warning("%s: %s", found, told[-1500:])
    return found
