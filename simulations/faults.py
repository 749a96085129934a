"""Faults that are not fleettune's own, each as one sentence that says how to go on."""

from __future__ import annotations

import sqlite3
import traceback
from pathlib import Path

from simulations.checkpoint.inputs import is_users_code
from simulations.checkpoint.resume import STATE_FILE, is_finished
from simulations.engines.cohort_grid import DeviceFailedError

OUTSIDE = (OSError, MemoryError, KeyboardInterrupt, sqlite3.OperationalError)


def explain_fault(error: BaseException, folder: Path | None) -> ValueError:
    """Returns a fault outside fleettune in one sentence, with how to go on."""
    if isinstance(error, KeyboardInterrupt):
        said = "stopped; every finished round is saved"
    elif isinstance(error, MemoryError):
        said = "no memory is left; free some, or lower engine.workers"
    else:
        said = f"{error}; free or correct that place, or set another hydra.run.dir or store"
    if folder is not None and is_finished(folder):
        page = f", `fleettune report {folder}` writes its page"
        is_study = (folder / "study.json").exists()
        said = f"{said}; the run is complete{'' if is_study else page}"
    elif folder is not None and (folder / STATE_FILE).exists():
        said = f"{said}; go on with resume={folder}"
    return ValueError(said)


def explain_user_code(error: BaseException) -> str | None:
    """Returns what code of the user's did wrong; None if an exception is fleettune's own.

    It is the user's if a device refused what a rule said, or if a frame is of a file of theirs.
    """
    cause = error.__cause__
    if isinstance(error, DeviceFailedError) and isinstance(cause, ValueError):
        return str(error)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename).resolve()
        if is_users_code(file):
            kind = type(error).__name__
            return f"{kind} in {frame.name} of {file}, line {frame.lineno}: {error}"
    return None if cause is None else explain_user_code(cause)
